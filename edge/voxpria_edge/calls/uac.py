"""Requests that we send in the place of one side, which the other takes for its own: ACK and BYE. Pure.

`TH` never leaves: it tells topoh that a request goes down the call, where its Call-ID is another.
"""

import dataclasses
from collections.abc import Mapping

from voxpria_routing.hosts import host_port
from voxpria_routing.snapshot import Trunk
from voxpria_sip import message
from voxpria_sip.dialog import Dialog

from voxpria_edge.calls import legs
from voxpria_edge.calls.call import Call
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Request
from voxpria_edge.trunks import credentials

_DOWN = "TH: dlv"


def acknowledged_and_ended(answer: messages.OfDialog) -> list[Request]:
    """Return the ACK to a 2xx, and the BYE that ends the call it began (RFC 3261 sections 13.2.2.4 and 15.1.1)."""
    dialog = legs.to_agent(answer)
    if dialog is None:
        return []
    dialog = dataclasses.replace(dialog, local_cseq=answer.cseq)
    next_hop = f"sip:{host_port(answer.source.strip('[]'), answer.port)};transport={answer.transport}"
    return [_request(each, next_hop, _DOWN) for each in (dialog.ack(answer.cseq), dialog.request("BYE"))]


def byes(call: Call) -> list[Request]:
    """Return the BYE to each side of a call, as far as we know where it is."""
    sides = ((call.to_agent, _DOWN), (call.to_caller, ""))
    return [_bye(legs.at_its_end(dialog), way) for dialog, way in sides if dialog is not None]


def bye_again(call: Call, asked: messages.ByeChallenged, trunks: Mapping[str, Trunk]) -> Request | None:
    """Return the BYE that answers the challenge of a trunk's server to one (RFC 3261 section 22).

    None if it was not of this call, was the second already, or was to its caller (who need not be the trunk's server,
    and is shown nothing), or if the trunk has no answer.
    """
    dialog, trunk = call.to_agent, trunks.get(call.trunk_id or "")
    headers = credentials.headers_of(messages.text(asked.head))
    is_of_call = dialog and legs.has_tags(dialog, messages.text(asked.from_tag), messages.text(asked.to_tag))
    if dialog is None or trunk is None or not is_of_call or legs.is_last(headers.get("cseq", ())):
        return None
    authorization = credentials.authorization(trunk, "BYE", dialog.target, asked.code, headers)
    bye = _bye(legs.at_its_end(dialog, is_again=True), _DOWN)
    return dataclasses.replace(bye, headers=bye.headers + authorization) if authorization else None


def _bye(dialog: Dialog, way: str) -> Request:
    return _request(dialog.request("BYE"), str(dialog.next_hop), way)


def _request(request: message.Request, next_hop: str, way: str) -> Request:
    lines = [f"{name}: {value}" for name, value in request.headers]
    return Request(request.method, request.uri, next_hop, "\r\n".join([*lines, *([way] if way else []), ""]))
