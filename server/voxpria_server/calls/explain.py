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
    "session_expired": "Neither side refreshed the session in the time that they had agreed on (Session-Expires, RFC "
    "4028), so the call was ended: one of them had vanished.",
    "insecure_media": "One side answered with media that is not encrypted, or not well enough, and its trunk requires "
    "encryption: the call was cut off.",
    "unreadable_media": "One side answered with a session description that can't be read, or that gives a host name "
    "for its media, so that its media could not be relayed: the call was cut off.",
    "not_placed": "No edge placed the call in time.",
    "lost": "The edge lost track of the call, so it was closed.",
    "refused": "The edge could not take the call: {code} {reason}.",
}

_BY_API = "The call was ended through the API."

_DOCTOR = "POST /v1/sip/trunks/{id}/test tells which"
_MENDS: dict[EndCause, str] = {
    "no_answer": "Check that the agent's side takes calls; a number's agent and language must exist there.",
    "unreachable": "Check config.server, config.port and config.transport of the trunk, its certificate and its "
    f"firewall; {_DOCTOR}.",
    "insecure_media": "Switch SRTP (SDES, AES_CM_128_HMAC_SHA1_80 or stronger) on at that side, or set its trunk's "
    "config.media_encryption to allowed.",
    "unreadable_media": "Look at the answer in GET /v1/calls/{id}/trace: that side must describe its media as RFC 8866 "
    "says, with an IP address in each c= line.",
    "not_placed": "Look at /readyz: an edge must be up, and reach the control plane.",
    "media_timeout": "Check that RTP can pass between the edge's media ports and both sides.",
    "session_expired": "Look in the call's trace for who was to refresh it (refresher=), and why that side did not.",
    "refused": "Look at /readyz whether every part of the edge is up; then the next call is taken. If all are, "
    "show the INVITE in GET /v1/calls/{id}/trace to whoever sent it.",
    "lost": "Look at /readyz and the edge's log for why a part of it was restarted; the call itself can't be mended.",
}

_NOTHING_HERE = "Nothing here: the called side was busy or declined, or its own limit of calls at once is reached."
_MENDS_OF_REFUSALS: dict[int, str] = {
    403: "Check that the trunk's server lets us in, by these credentials or our address, and takes the number's calls.",
    404: "Set the number up at the trunk's server too, exactly as it is sent there, '+' included.",
    408: "Check that the agent is switched on at its server.",
    480: "Check that the agent is switched on at its server.",
    **dict.fromkeys(
        (415, 488, 606), "Set the trunk's config.codecs and config.media_encryption to what its server takes."
    ),
    420: "Have the caller's side require no extension that the trunk's server does not know (100rel, timer, …).",
    421: "Have the caller's side support the extension that the trunk's server requires, or the server go without.",
    482: "The call came back to where it had been: set the trunk's config.server to the agent's, not to this edge.",
    **dict.fromkeys((486, 600, 603), _NOTHING_HERE),
}
_MEND_OF_FAILURES = (
    f"The trunk's server has trouble of its own, or does not take the trunk's credentials: {_DOCTOR}. "
    "config.failover_trunk_ids names trunks that stand in."
)
_MEND_OF_OTHERS = "Look up what the trunk's SIP server says to this code: often wrong credentials or an unknown agent."


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
        "mend": _mend(call.ended) or decided.mend,
    }


def _attempt(attempt: Attempted) -> str:
    sentence = f"{attempt.server} did not take the call: {attempt.sip_code} {attempt.sip_reason}; the next was tried."
    return f"{sentence} {attempt.detail}" if attempt.detail else sentence


def _came_of_it(ended: Ended) -> str:
    template = _SUMMARIES.get(ended.cause, "The call ended.") if ended.by != "api" else _BY_API
    sentence = template.format(by=ended.by, code=ended.sip_code, reason=ended.sip_reason)
    return f"{sentence} {ended.detail}" if ended.detail else sentence


def _mend(ended: Ended) -> str | None:
    """Return what to do about it; None for the ends that are none of a fault."""
    if ended.cause != "rejected":
        return _MENDS.get(ended.cause)
    default = _MEND_OF_FAILURES if 500 <= ended.sip_code < 600 else _MEND_OF_OTHERS
    return _MENDS_OF_REFUSALS.get(ended.sip_code, default)
