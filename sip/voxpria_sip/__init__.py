"""A small SIP stack for user agents (RFC 3261): messages, transports, transactions, dialogs. No media, no policy."""
