"""Byte ranges of an HTTP request (RFC 9110 section 14). Pure."""

import re

_SINGLE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class UnsatisfiableError(Exception):
    """The range lies outside of what is there: answer 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the half-open range of bytes that a Range header asks for, of `size` bytes; None means all of it.

    What can't be read, and several ranges at once, mean all of it too: a server may ignore the header.
    Raises UnsatisfiableError.
    """
    match = _SINGLE.fullmatch((header or "").replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableError
    return int(first), min(int(last) + 1, size) if last else size


def _suffix(length: int, size: int) -> tuple[int, int]:
    if length == 0 or size == 0:
        raise UnsatisfiableError
    return max(size - length, 0), size
