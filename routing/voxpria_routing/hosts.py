"""Hosts and ports as URIs and headers write them: an IPv6 address stands in brackets (RFC 3261 section 25.1). Pure."""

from voxpria_routing.snapshot import Transport

_DEFAULT_PORTS: dict[Transport, int] = {"udp": 5060, "tcp": 5060, "tls": 5061}


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


def has_service(host: str, port: int, transport: Transport) -> bool:
    """Tell whether a server is sought by SRV records: a name, without a port of its own (RFC 3263 section 4.2)."""
    is_a_name = not host.replace(".", "").isdigit() and ":" not in host
    return is_a_name and port == _DEFAULT_PORTS[transport]
