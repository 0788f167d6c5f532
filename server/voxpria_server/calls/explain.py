"""Why a call went as it did, for a person to read. Pure.

A refused call keeps the edge's own explanation. Any other ending adds to the decision's explanation what came of it.
"""

from typing import Any

from voxpria_routing.events import Attempted, EndCause, Ended

from voxpria_server.calls.state import Call

_SUMMARIES: dict[EndCause, str] = {
    "hangup": "The {by} hung up.",
    "max_duration": "The call reached the number's max_duration and was ended at both sides.",
    "rejected": "The called side refused the call: {code} {reason}.",
    "no_answer": "Nobody answered in time.",
    "canceled": "The {by} hung up before anybody answered.",
    "unreachable": "The called side could not be reached: {code} {reason}.",
    "media_timeout": "Neither side sent any audio for too long, so the call was ended.",
    "insecure_media": "One side answered with media that is not encrypted, or not well enough, and its trunk requires "
    "encryption: the call was cut off.",
    "not_placed": "No edge placed the call in time.",
    "lost": "The edge lost track of the call, so it was closed.",
}

_BY_API = "The call was ended through the API."

_MENDS: dict[EndCause, str] = {
    "rejected": "Look up what the trunk's SIP server says to this code: often wrong credentials or an unknown agent.",
    "no_answer": "Check that the agent's side takes calls; a number's agent and language must exist there.",
    "unreachable": "Check config.server, config.port and config.transport of the trunk, and its firewall.",
    "insecure_media": "Switch SRTP (SDES, AES_CM_128_HMAC_SHA1_80 or stronger) on at that side, or set its trunk's "
    "config.media_encryption to allowed.",
    "not_placed": "Look at /readyz: an edge must be up, and reach the control plane.",
    "media_timeout": "Check that RTP can pass between the edge's media ports and both sides.",
}


def explanation(call: Call) -> dict[str, Any]:
    """Return what the API shows as `explanation`."""
    decided = call.invited.explanation
    shown = {
        "summary": decided.summary,
        "tried": list(decided.tried),
        "nearest": decided.nearest,
        "mend": decided.mend,
    }
    if call.ended is None or call.invited.refusal is not None:
        return shown
    came_of_it = _came_of_it(call.ended)
    return shown | {
        "summary": f"{decided.summary} {came_of_it}",
        "tried": [*decided.tried, *map(_attempt, call.attempts), came_of_it],
        "mend": _MENDS.get(call.ended.cause, decided.mend),
    }


def _attempt(attempt: Attempted) -> str:
    sentence = f"{attempt.server} did not take the call: {attempt.sip_code} {attempt.sip_reason}; the next was tried."
    return f"{sentence} {attempt.detail}" if attempt.detail else sentence


def _came_of_it(ended: Ended) -> str:
    template = _SUMMARIES.get(ended.cause, "The call ended.") if ended.by != "api" else _BY_API
    sentence = template.format(by=ended.by, code=ended.sip_code, reason=ended.sip_reason)
    return f"{sentence} {ended.detail}" if ended.detail else sentence
