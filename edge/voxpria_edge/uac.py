"""Requests that we send for a caller who is not to hear of an answer: ACK and BYE. Pure.

`TH` never leaves: it tells topoh that a request goes down the call, where its Call-ID is another.
"""

import re
from dataclasses import dataclass

from voxpria_routing.hosts import host_port

from voxpria_edge import messages

_ADDRESS = re.compile(r"<([^<>\s]+)>")


@dataclass(frozen=True)
class Request:
    """A request as Kamailio's RPC takes it."""

    method: str
    uri: str
    next_hop: str
    headers: str


def acknowledged_and_ended(answer: messages.Insecure) -> list[Request]:
    """Return the ACK to a 2xx, and the BYE that ends the call it began (RFC 3261 sections 13.2.2.4 and 15.1.1)."""
    return [_within(answer, "ACK", answer.cseq), _within(answer, "BYE", answer.cseq + 1)]


def _within(answer: messages.Insecure, method: str, cseq: int) -> Request:
    lines = [
        f"From: {messages.text(answer.from_)}",
        f"To: {messages.text(answer.to)}",
        f"Call-ID: {messages.text(answer.call_id)}",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
        "TH: dlv",
        *(f"Route: <{route}>" for route in _routes(answer)),
    ]
    contact = messages.text(answer.contact)
    found = _ADDRESS.search(contact)
    uri = found[1] if found else contact.partition(";")[0].strip()
    next_hop = f"sip:{host_port(answer.source.strip('[]'), answer.port)};transport={answer.transport}"
    return Request(method, uri, next_hop, "\r\n".join([*lines, ""]))


def _routes(answer: messages.Insecure) -> list[str]:
    """Return the route set beyond us: what stands above our own entry, the nearest first."""
    beyond = []
    for route in _ADDRESS.findall(messages.text(answer.record_route)):
        if f"call={messages.text(answer.record)}" in route:
            break
        beyond.append(route)
    return beyond[::-1]
