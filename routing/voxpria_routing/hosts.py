"""Hosts and ports as URIs and headers write them: an IPv6 address stands in brackets (RFC 3261 section 25.1). Pure."""


def bracketed(host: str) -> str:
    """Return a host; an IPv6 address gets its brackets."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return `host:port`; the host comes without brackets."""
    return f"{bracketed(host)}:{port}"


def split(text: str) -> tuple[str, int]:
    """Return what `host_port` was made of; raise ValueError if `text` ends in no port."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
