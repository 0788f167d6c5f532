"""Where calls are dealt with while they last: answered for, dialled, watched, hung up."""
