"""A small SIP user agent (RFC 3261) on asyncio: UDP, TCP and TLS, digest, dialogs with route sets."""
