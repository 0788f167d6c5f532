"""A call's record as a pure function of its events. No I/O.

Events may come twice and in any order; the record is the same in the end. A call ends once: the first ending that
is taken stands. `Ended` with code 200 that comes before its `Answered` waits for it, as the duration is not known.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from voxpria_routing.events import (
    Answered,
    Attempted,
    CallEvent,
    Ended,
    Invited,
    Measured,
    Queued,
    Recorded,
    RecordingDeleted,
    RecordingFailed,
)

Status = Literal["queued", "in-progress", "completed", "failed", "no-answer", "busy", "canceled"]
Recording = Literal["none", "announced", "ready", "failed", "deleted"]

OK = 200
_BY_CAUSE: dict[str, Status] = {"canceled": "canceled", "no_answer": "no-answer"}
_BY_REJECTION: dict[int, Status] = {486: "busy", 600: "busy", 408: "no-answer", 480: "no-answer"}
"""What the called side's final code (RFC 3261 section 21) makes of the call; every other one: failed."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, as far as its events have told."""

    invited: Invited
    queued: Queued | None = None
    """How the API asked for it, if it did."""
    is_placed: bool = True
    """False until an edge tells of a call that the API asked for; `invited` is then what is known before."""
    attempts: tuple[Attempted, ...] = ()
    """Tries that came to nothing while another trunk followed, in order of time."""
    answered: Answered | None = None
    ended: Ended | None = None
    waiting_end: Ended | None = None
    """An ending with code 200 whose answer has not come yet."""
    measured: Measured | None = None
    recorded: Recorded | None = None
    recording_failed: RecordingFailed | None = None
    recording_deleted: RecordingDeleted | None = None

    @property
    def is_over(self) -> bool:
        """True once the call has ended."""
        return self.ended is not None

    @property
    def is_answered(self) -> bool:
        """True if somebody took the call."""
        return self.answered is not None or (self.ended is not None and self.ended.sip_code == OK)

    @property
    def status(self) -> Status:
        """The call's status, in the API's words."""
        if self.ended is None:
            return "in-progress" if self.is_placed else "queued"
        if self.is_answered:
            return "completed"
        if self.ended.cause == "rejected":
            return _BY_REJECTION.get(self.ended.sip_code, "failed")
        return _BY_CAUSE.get(self.ended.cause, "failed")

    @property
    def started_at(self) -> datetime:
        """When it was asked for, or its INVITE came."""
        return self.queued.at if self.queued else self.invited.at

    @property
    def answered_at(self) -> datetime | None:
        """When the called side answered."""
        return self.answered.at if self.answered else None

    @property
    def duration_seconds(self) -> int:
        """Whole seconds from answer to end, rounded half up; 0 before the end and if never answered."""
        if self.ended is None or self.answered is None:
            return 0
        return max(0, int((self.ended.at - self.answered.at).total_seconds() + 0.5))

    @property
    def recording(self) -> Recording:
        """How the recording stands."""
        if self.recording_deleted:
            return "deleted"
        if self.recorded:
            return "ready"
        if self.recording_failed:
            return "failed"
        return "announced" if self.answered and self.answered.recording else "none"

    @property
    def phone_number(self) -> str:
        """The number of ours that the call is for: the called one, or for an outbound call the calling one."""
        return self.invited.to if self.invited.direction == "inbound" else self.invited.from_


def replay(events: Iterable[CallEvent]) -> Call | None:
    """Return the call that `events`, in the order in which they were taken, tell of; None before its `Invited`."""
    taken: dict[str, CallEvent] = {}
    for event in events:
        taken.setdefault(event.id, event)
    invited = next((event for event in taken.values() if isinstance(event, Invited)), None)
    queued = next((event for event in taken.values() if isinstance(event, Queued)), None)
    if invited is None and queued is None:
        return None
    call = Call(invited=invited or _as_asked(queued), queued=queued, is_placed=invited is not None)
    for event in taken.values():
        call = next_state(call, event)
    return call


def _as_asked(queued: Queued | None) -> Invited:
    """Return what is known of a call before an edge has it."""
    assert queued is not None
    return Invited(
        id=queued.id,
        call_id=queued.call_id,
        at=queued.at,
        account_id=queued.account_id,
        mode=queued.mode,
        direction="outbound",
        from_=queued.from_,
        to=queued.to,
        number_id=queued.number_id,
        trunk_id=queued.trunk_id,
        agent_id=queued.agent_id,
        edge_id="",
        sip_call_id="",
        source="api",
        transport="",
        max_duration_seconds=queued.max_duration_seconds,
        explanation=queued.explanation,
    )


def next_state(call: Call, event: CallEvent) -> Call:
    """Return `call` after one more event. What it already knows stands, but for better measurements."""
    match event:
        case Answered() if call.answered is None:
            return _after_answer(replace(call, answered=event))
        case Ended() if call.ended is None:
            return _after_end(call, event)
        case Attempted() | Measured():
            return _with_more(call, event)
        case Recorded() | RecordingFailed() | RecordingDeleted():
            return _after_recording(call, event)
        case _:
            return call


def _after_recording(call: Call, event: Recorded | RecordingFailed | RecordingDeleted) -> Call:
    match event:
        case Recorded() if call.recorded is None:
            return replace(call, recorded=event)
        case RecordingFailed() if call.recording_failed is None:
            return replace(call, recording_failed=event)
        case RecordingDeleted() if call.recording_deleted is None:
            return replace(call, recording_deleted=event)
        case _:
            return call


def _with_more(call: Call, event: Attempted | Measured) -> Call:
    if isinstance(event, Measured):
        return replace(call, measured=_better(call.measured, event))
    attempts = {attempt.id: attempt for attempt in (*call.attempts, event)}
    return replace(call, attempts=tuple(sorted(attempts.values(), key=lambda attempt: (attempt.at, attempt.id))))


def _after_answer(call: Call) -> Call:
    if call.ended is None and call.waiting_end is not None:
        return replace(call, ended=call.waiting_end, waiting_end=None)
    return call


def _after_end(call: Call, event: Ended) -> Call:
    if call.waiting_end is not None:
        return replace(call, ended=call.waiting_end, waiting_end=None)
    if call.answered is None and event.sip_code == OK:
        return replace(call, waiting_end=event)
    return replace(call, ended=event)


def _better(known: Measured | None, new: Measured) -> Measured:
    """Prefer what was measured from packets to what the far ends reported; then the earlier."""

    def rank(measured: Measured) -> tuple[bool, datetime, str]:
        return (measured.source != "packets", measured.at, measured.id)

    return new if known is None else min(known, new, key=rank)
