"""SIP URIs of a trunk's server: what is dialled there, who is named to it, where it is reached. Pure."""

from urllib.parse import quote

from voxpria_routing.hosts import bracketed, has_service
from voxpria_routing.snapshot import Transport, Trunk

_USER = "-_.!~*'()&=+$,;?/"
"""What may stand unescaped in the user part of a SIP URI (RFC 3261 section 25.1), besides letters and digits."""


def request_uri(target: Trunk, called: str) -> str:
    """Return the SIP URI to put into the request line (RFC 3261 section 19.1).

    The port that a transport has anyway is left out, so that the server is found by its SRV records where it has some
    (RFC 3263 section 4.2); a port that was chosen stands.
    """
    user = target.request_user or called
    return f"sip:{user}@{server_uri(target).removeprefix('sip:')}"


def server_uri(target: Trunk) -> str:
    """Return the SIP URI of the server itself: for what is no call."""
    return f"sip:{bracketed(target.server)}{_port(target)}{_parameter(target.transport)}"


def user_uri(target: Trunk, user: str) -> str:
    """Return a number or another user of the trunk's server as a SIP URI, for From, To and P-Asserted-Identity."""
    return f"sip:{quote(user, safe=_USER)}@{bracketed(target.server)}"


def next_hop_uri(target: Trunk) -> str | None:
    """Return the SIP URI to send to, where that is not the request URI's own host."""
    return None if target.next_hop is None else f"sip:{target.next_hop}{_parameter(target.transport)}"


def _port(target: Trunk) -> str:
    is_sought = target.next_hop is None and has_service(target.server, target.port, target.transport)
    return "" if is_sought else f":{target.port}"


def _parameter(transport: Transport) -> str:
    return "" if transport == "udp" else f";transport={transport}"
