"""The SIP messages of one call, as the edge saw them on the wire, secrets removed."""

from typing import Literal

import msgspec

from voxpria_routing.events import UtcTime

Leg = Literal["carrier", "agent"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message."""

    at: UtcTime
    source: str
    """`ip:port`, an IPv6 address in brackets."""
    destination: str
    transport: Literal["udp", "tcp", "tls"]
    leg: Leg
    """With whom it was exchanged."""
    is_received: bool
    """True for what came to the edge, False for what the edge sent."""
    text: str
    """As on the wire, but for secrets; bytes that are no UTF-8 are shown escaped."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """All messages of a call, oldest first."""

    call_id: str
    messages: tuple[Message, ...]
    is_truncated: bool = False
    """True when there were more than are kept of one call."""
