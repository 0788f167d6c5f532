"""From the mirrored messages of one call to its trace, and to where its set-up time went. Pure."""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from voxpria_routing.events import Timed
from voxpria_routing.hosts import host_port
from voxpria_routing.trace import Leg, Message, Trace

from voxpria_edge.calls.call import AGENT_TAG, CARRIER_TAG
from voxpria_edge.kit.ids import event_id
from voxpria_edge.trace.hep import Address

_VIA = re.compile(r"^(?:via|v)\s*:\s*SIP\s*/\s*2\.0\s*/\s*(\w+)", re.M | re.I)
_CSEQ = re.compile(r"^cseq\s*:\s*\d+\s+(\w+)", re.M | re.I)
_CSEQ_NUMBER = re.compile(r"^cseq\s*:\s*(\d+)", re.M | re.I)
_BRANCH = re.compile(r"^(?:via|v)\s*:[^\r\n]*?;\s*branch=([^;,\s]+)", re.M | re.I)
_STATUS = re.compile(r"SIP/2\.0 (\d{3})")
_OUR_TAG = re.compile(rf";\s*tag=({CARRIER_TAG}|{AGENT_TAG})")
_OK = 200


class Seen(msgspec.Struct, frozen=True):
    """A redacted message with its time and addresses."""

    at: float
    source: Address
    destination: Address
    text: str


def trace(
    call_id: str,
    seen: Sequence[Seen],
    ours: Callable[[Address], bool],
    *,
    is_outbound: bool = False,
    is_truncated: bool,
) -> Trace:
    """Return the trace of a call's messages; `ours` tells the edge's own addresses."""
    ordered = _in_order(seen, ours)
    legs = _Legs(ordered, ours, is_outbound=is_outbound)
    return Trace(call_id=call_id, messages=tuple(map(legs.message, ordered)), is_truncated=is_truncated)


def _in_order(seen: Sequence[Seen], ours: Callable[[Address], bool]) -> list[Seen]:
    """Return the messages by time; what we sent was stamped after it was out, so it can be late, but not that late.

    On a busy machine an answer may have been stamped before what it answers: that went out by then.
    """
    answered: dict[tuple[str, ...], float] = {}
    for message in seen:
        if ours(message.destination) and (what := _what_it_answers(message.text)):
            answered[what] = min(message.at, answered.get(what, message.at))
    mended = [
        message
        if ours(message.destination)
        else msgspec.structs.replace(message, at=min(message.at, answered.get(_as_answered(message.text), message.at)))
        for message in seen
    ]
    return sorted(mended, key=lambda message: (message.at, ours(message.destination)))


def _what_it_answers(text: str) -> tuple[str, ...] | None:
    """Return what a received message answers: a request by its branch, or for an ACK the final answer by its CSeq."""
    if text.startswith("ACK "):
        return ("final", _found(_CSEQ_NUMBER, text))
    return ("request", _found(_BRANCH, text), _method(text)) if text.startswith("SIP/2.0 ") else None


def _as_answered(text: str) -> tuple[str, ...]:
    if not text.startswith("SIP/2.0 "):
        return ("request", _found(_BRANCH, text), _method(text))
    return ("final", _found(_CSEQ_NUMBER, text)) if _is_final_to_invite(text) else ("none",)


def _is_final_to_invite(text: str) -> bool:
    return _method(text) == "INVITE" and int(_found(_STATUS, text) or 0) >= _OK


def _method(text: str) -> str:
    return _found(_CSEQ, text)


def _found(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


class _Legs:
    """Tells who is at the other end of a message: the carrier sent the first INVITE, the agent's side got it.

    Of an outbound call it is the other way round.
    """

    def __init__(self, seen: Iterable[Seen], ours: Callable[[Address], bool], *, is_outbound: bool) -> None:
        self._ours = ours
        invites = [message for message in seen if message.text.startswith("INVITE ")]
        caller = next((m.source for m in invites if ours(m.destination)), None)
        called = next((m.destination for m in invites if not ours(m.destination)), None)
        self._carrier, self._agent = (called, caller) if is_outbound else (caller, called)

    def message(self, seen: Seen) -> Message:
        is_received = self._ours(seen.destination)
        return Message(
            at=datetime.fromtimestamp(seen.at, UTC),
            source=host_port(*seen.source),
            destination=host_port(*seen.destination),
            transport=_transport(seen.text),
            leg=self._leg(seen.source if is_received else seen.destination, seen.text),
            is_received=is_received,
            text=seen.text,
        )

    def _leg(self, peer: Address, text: str) -> Leg:
        """By our own tag, if we are an end of it; else by address and port, or where a side uses another by address."""
        if marked := _OUR_TAG.search(text):
            return "carrier" if marked[1] == CARRIER_TAG else "agent"
        for what in (slice(2), slice(1)):
            if self._carrier and peer[what] == self._carrier[what]:
                return "carrier"
            if self._agent and peer[what] == self._agent[what]:
                return "agent"
        return "agent"


def _transport(text: str) -> Literal["udp", "tcp", "tls"]:
    """Return the hop's transport: the topmost Via (RFC 3261 section 18) is of the hop that a message is on."""
    found = _VIA.search(text)
    match found[1].lower() if found else "":
        case "tls":
            return "tls"
        case "tcp":
            return "tcp"
        case _:
            return "udp"


def timed(story: Trace, now: datetime, *, is_outbound: bool = False) -> Timed | None:
    """Return where the time went until the call was answered; None for a call that was not dialled.

    Each part is None when what ends it was not seen. The called side's challenge and its answer count as its time.
    """
    caller: Leg = "agent" if is_outbound else "carrier"
    called: Leg = "carrier" if is_outbound else "agent"
    asked = _first(story, caller, is_received=True, is_wanted=lambda m: m.text.startswith("INVITE "))
    dialled = _first(story, called, is_received=False, is_wanted=lambda m: m.text.startswith("INVITE "))
    if dialled is None or (asked is None and not is_outbound):
        return None
    rang = _first(story, called, is_received=True, is_wanted=lambda m: 180 <= _invite_status(m) < _OK)
    answered = _first(story, called, is_received=True, is_wanted=lambda m: _invite_status(m) // 100 == 2)
    told = _first(story, caller, is_received=False, is_wanted=lambda m: _invite_status(m) >= 180)
    confirmed = _first(story, caller, is_received=False, is_wanted=lambda m: _invite_status(m) >= _OK)
    acknowledged = _first(story, caller, is_received=True, is_wanted=lambda m: m.text.startswith("ACK "))
    return Timed(
        id=event_id(story.call_id, "timed"),
        call_id=story.call_id,
        at=now,
        post_dial_delay_ms=_ms(asked, told),
        edge_ms=_ms(asked, dialled),
        agent_ringing_ms=_ms(dialled, rang),
        agent_answer_ms=_ms(dialled, answered),
        carrier_ack_ms=_ms(confirmed, acknowledged) if answered else None,
    )


def _first(story: Trace, leg: Leg, *, is_received: bool, is_wanted: Callable[[Message], bool]) -> Message | None:
    return next(
        (m for m in story.messages if m.leg == leg and m.is_received is is_received and is_wanted(m)),
        None,
    )


def _invite_status(message: Message) -> int:
    """Return the code of an answer to an INVITE; 0 for anything else."""
    status = _STATUS.match(message.text)
    return int(status[1]) if status and _method(message.text) == "INVITE" else 0


def _ms(since: Message | None, until: Message | None) -> float | None:
    if since is None or until is None:
        return None
    return round(1000 * (until.at - since.at).total_seconds(), 1)
