"""How tries and calls end, and what is reported of it. Pure."""

from datetime import datetime
from typing import get_args

import msgspec
from voxpria_routing import events
from voxpria_routing.snapshot import Trunk

from voxpria_edge.calls import verdicts
from voxpria_edge.calls.call import Call, answer_of
from voxpria_edge.kit.ids import event_id
from voxpria_edge.proxy import messages

_OWN_WORDS: dict[str, tuple[events.EndCause, str]] = {
    "out_of_service": ("refused", "The edge's agent did not answer in time; it was not running or too busy."),
    "no_media": ("refused", "The edge's media relay did not answer, or could not read what media the caller offers."),
    "credentials": ("rejected", "The trunk's server refused the trunk's username and password."),
    "no_credentials": (
        "rejected",
        "The trunk's server wants a username and a password, and the trunk has none: set its credentials.",
    ),
    "no_trunk": ("rejected", "The trunk's server wants a username and a password, and the trunk is no more."),
    "unknown_digest": (
        "rejected",
        "The trunk's server wants a digest that is neither MD5 nor SHA-256: have it take one of these.",
    ),
    "forbidden": (
        "unreachable",
        (
            "The trunk's server is at a private, local or reserved address, which live calls may not go to;"
            " the operator may allow that with VOXPRIA_ALLOW_PRIVATE_TRUNKS."
        ),
    ),
    "unreachable": ("unreachable", "The trunk's server could not be reached, or did not answer at all."),
}
"""Kamailio's words for an end that need a sentence."""
_UNSATISFIED = {"credentials", "no_credentials", "no_trunk", "unknown_digest"}
_NOBODY_THERE = {408, 480}
_OK = (200, "OK")
_INTERNAL_ERROR = (500, "Server Internal Error")
_LONGEST_NOTE = 200
SipAnswer = tuple[int, str]
"""Status code and reason phrase."""
API_ANSWER = (603, "Decline")
"""What a caller hears whose call is ended through the API while it rings: nobody else is to be tried."""
UNFIT = (488, "Not Acceptable Here")
"""The answer to a caller whose call is not let through, as the called side's media can't stand."""


def goes_elsewhere(message: messages.Tried) -> bool:
    """Tell whether another server might take the call: not where the caller caused it, or the called one said no."""
    if message.cause == "rejected":
        return message.code in _NOBODY_THERE or 500 <= message.code < 600 or verdicts.is_redirection(message.code)
    return message.cause in {"unreachable", "forbidden", "no_answer", *_UNSATISFIED}


def is_failure_of_server(message: messages.Tried) -> bool:
    """Tell whether the server is to blame, so that too many of these keep calls from it."""
    return message.cause == "unreachable" or (message.cause == "rejected" and 500 <= message.code < 600)


def moved_on(
    call: Call, message: messages.Tried, target: Trunk, half: str | None, detail: str | None
) -> list[events.CallEvent]:
    """Return what is reported of a try at `target` that came to nothing, while another follows.

    `half` is the record of the agent's half of a call that we place; None where it is the call itself that is tried.
    """
    cause, words = _cause(call, message)
    event = events.Attempted(
        id=event_id(call.id, f"attempted {call.at_trunk if half is None else half}"),
        call_id=call.id,
        at=messages.time(message.at),
        trunk_id=target.id,
        server=f"{target.server}:{target.port}/{target.transport}",
        cause=cause,
        sip_code=message.code,
        sip_reason=messages.text(message.reason),
        detail=detail or words,
    )
    return [event]


def given_up(call: Call, message: messages.Tried, detail: str | None) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that no server took, and what is reported."""
    cause, words = _cause(call, message)
    answer = verdicts.give_up(message)
    by: events.Side = "edge" if message.cause == "no_media" else _side(call, "agent")
    detail = detail or words or messages.text(message.note) or None
    return end(call, messages.time(message.at), cause, by, (answer.code, answer.reason), detail)


def end(
    call: Call, at: datetime, cause: events.EndCause, by: events.Side, answer: SipAnswer, detail: str | None = None
) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as it is over, and what is reported; `answer` is what its INVITE got if nobody answered it."""
    code, reason = _OK if call.answered_at else answer
    event = events.Ended(
        id=event_id(call.id, "ended"),
        call_id=call.id,
        at=at,
        cause=cause,
        by=by,
        sip_code=code,
        sip_reason=reason,
        detail=detail,
    )
    untold = [answer_of(call)] if call.answered_at is not None and not call.is_connected else []
    return msgspec.structs.replace(call, ended_at=at), [*untold, event]


def cut_off(call: Call, message: messages.Unfit) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that is not let through, as its answer can't stand, and what is reported."""
    if call.ended_at is not None:
        return call, []
    return end(call, messages.time(message.at), message.cause, "edge", UNFIT)


def ended(call: Call, message: messages.Ended) -> tuple[Call, list[events.CallEvent]]:
    """Return the ended call, and what is reported; nothing the second time: the first end is the end."""
    if call.ended_at is not None:
        return call, []
    cause, detail = _cause(call, message)
    by = call.ended_by if message.by == "edge" or _is_our_doing(call) else _side(call, message.by)
    answer = message.code, messages.text(message.reason)
    return end(call, messages.time(message.at), cause, by, answer, detail or _said(message))


def _is_our_doing(call: Call) -> bool:
    """Whether a BYE that Kamailio saw was ours, whoever it seemed to be from: we are one end of each half."""
    return call.bridge is not None and call.ending is not None


def _side(call: Call, by: events.Side) -> events.Side:
    """Return who did what Kamailio tells of, which takes whoever sent the INVITE for the caller."""
    others: dict[events.Side, events.Side] = {"caller": "agent", "agent": "caller"}
    return others.get(by, by) if call.is_outbound else by


def _said(message: messages.Ended) -> str | None:
    note = messages.text(message.note)[:_LONGEST_NOTE]
    return f"The BYE says why: {note}." if note.strip() else None


def _cause(call: Call, message: messages.Ended | messages.Tried) -> tuple[events.EndCause, str | None]:
    is_ours = isinstance(message, messages.Ended) and (message.by == "edge" or _is_our_doing(call))
    if is_ours and call.ending is not None:
        return call.ending, call.ending_detail
    if message.cause == "canceled" and call.answered_at is not None:  # an agent that waited while the callee was told
        return "hangup", None
    if message.cause in _OWN_WORDS:
        return _OWN_WORDS[message.cause]
    if isinstance(message, messages.Tried) and verdicts.is_redirection(message.code):
        said = f"{message.code} {messages.text(message.reason)}"
        return (
            "rejected",
            f"It redirects the call ({said}), and calls go to no server but those in trunks' config.server.",
        )
    for cause in get_args(events.EndCause):
        if cause == message.cause:
            return cause, None
    return "lost", f"Kamailio reported an end that is not known here: {message.cause}."


def canceled_by_api(call: Call, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as ended before anybody answered, because the API was told to."""
    return end(call, at, "canceled", "api", API_ANSWER)


def hung_up(call: Call, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the answered call as ended because we asked for that, where Kamailio can't say that it was."""
    who = "the agent beside it hung up" if call.to_caller and call.to_agent else "only the media could be ended"
    detail = call.ending_detail or f"Kamailio had been restarted during the call: {who}."
    return end(call, at, call.ending or "lost", call.ended_by, _OK, detail)


def failed(
    call: Call, at: datetime, cause: events.EndCause, by: events.Side, detail: str
) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that we placed as ended by what came of it before both were connected."""
    return end(call, at, cause, by, verdicts.UNAVAILABLE, detail)


def lost(call: Call, at: datetime, detail: str) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as ended by losing sight of it."""
    return end(call, at, "lost", "edge", _INTERNAL_ERROR, detail)
