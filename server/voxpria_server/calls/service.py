"""The rules for calls. Every write of a call's record is here."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import OpenCalls
from voxpria_routing.events import CallEvent, Ended, RecordingDeleted, Rejected

from voxpria_server.auth.service import Caller
from voxpria_server.calls import commands, location, quality, queries, recordings
from voxpria_server.calls.explain import explanation
from voxpria_server.calls.links import RecordingLinks
from voxpria_server.calls.state import OK, Call, replay
from voxpria_server.errors import NotFoundError
from voxpria_server.kit import tracing
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.jobs import defer, defer_many
from voxpria_server.kit.logs import get_logger
from voxpria_server.numbers import queries as number_queries
from voxpria_server.numbers import service as numbers
from voxpria_server.webhooks import outbox
from voxpria_server.webhooks.schemas import EventType

LOCATE = "calls:locate"
TRANSCRIBE = "calls:transcribe"
TRANSCRIPT_DELAY_SECONDS = 1.0
"""How long a provider is given to write down what was said, before it is asked for the first time."""

DEFAULT_MAX_DURATION_SECONDS = 3600
"""For a call that was dialled with no limit of its own; the edge's limit is the number's."""

_log = get_logger(__name__)
_OPEN_CALLS_AT_ONCE = 10_000
_DATA_EXCEPTION, _CONSTRAINT_VIOLATION, _FOREIGN_KEY = "22", "23", "23503"


async def get(database: Database, caller: Caller, call_id: str) -> asyncpg.Record:
    """Return a call with all that hangs on it; raise 404 call_not_found."""
    row = await queries.find_full(database, caller, call_id)
    if row is None:
        raise NotFoundError("There is no call with this id.", code="call_not_found")
    return row


async def take_batch(links: RecordingLinks, database: Database, events: Sequence[CallEvent]) -> list[Rejected]:
    """Do as `take` does, in a transaction of its own, and without a savepoint while all events can be taken."""
    try:
        async with database.transaction() as conn:
            if events:
                await advance(links, conn, events)
            return []
    except sa.exc.DBAPIError as error:
        _refusal(error)
    async with database.transaction() as conn:
        return await take(links, conn, events)


async def take(links: RecordingLinks, conn: AsyncConnection, events: Sequence[CallEvent]) -> list[Rejected]:
    """Take events of edges, in order; return those that can never be taken, and why.

    An event taken before changes nothing. A failure of the database is raised, and nothing is taken then.
    """
    if not events:
        return []
    try:
        async with conn.begin_nested():
            await advance(links, conn, events)
    except sa.exc.DBAPIError as error:
        refusal = _refusal(error)
        if len(events) == 1:
            return [Rejected(id=events[0].id, error=refusal)]
        return [rejected for event in events for rejected in await take(links, conn, [event])]
    return []


async def advance(links: RecordingLinks, conn: AsyncConnection, events: Sequence[CallEvent]) -> None:
    """Apply events to their calls, locked until the caller's transaction ends; tell whom it concerns.

    However many they are, it takes the same few statements.
    """
    steps = await _steps(conn, events)
    opened = [step.after for step in steps if step.opens]
    closed = [step.after for step in steps if step.closes]
    records = {step.after.invited.call_id: _row(step.after) for step in steps}
    unlocated = []
    for call in opened:
        if location.is_at_hand():
            records[call.invited.call_id]["caller_location"] = location.look_up(call.invited.from_)
        else:
            unlocated.append(call.invited.call_id)
    if records:
        await queries.put_of_edge(conn, list(records.values()))
    if unlocated:
        await defer(conn, LOCATE, {"call_ids": unlocated}, queue="calls")
    placed = [step.after for step in steps if step.begins and step.after.queued is not None]
    if placed:
        await queries.drop_commands_by_id(conn, [f"place_{call.invited.call_id}" for call in placed])
    await _close(conn, closed)
    await outbox.emit_all(conn, [happening for step in steps for happening in _announcements(links, step)])
    if any(step.before is not None and step.before.recording != step.after.recording for step in steps):
        await recordings.announce(conn)


@dataclass(frozen=True)
class _Step:
    """What one event made of a call."""

    before: Call | None
    after: Call
    traceparent: str | None = None
    """Its place in the call's trace."""

    @property
    def opens(self) -> bool:
        """True if the call is known from here on."""
        return self.before is None

    @property
    def begins(self) -> bool:
        """True if an edge has the call from here on."""
        return self.after.is_placed and not (self.before and self.before.is_placed)

    @property
    def closes(self) -> bool:
        """True if the call ends here."""
        return self.after.is_over and not (self.before and self.before.is_over)


async def _steps(conn: AsyncConnection, events: Sequence[CallEvent]) -> list[_Step]:
    """Keep the events that are new; return what each changes, in their order."""
    told: defaultdict[str, list[CallEvent]] = defaultdict(list)
    fresh = set()
    rows = [(event.id, event.call_id, msgspec.json.encode(event)) for event in events]
    for row in await queries.take_events_of_edge(conn, rows):
        if row.id is None:
            told[row.call_id].append(msgspec.json.decode(row.body, type=CallEvent))
        else:
            fresh.add(row.id)
    calls = {call_id: replay(known) for call_id, known in told.items()}
    steps = []
    for event in events:
        if event.id not in fresh:
            continue
        fresh.discard(event.id)
        told[event.call_id].append(event)
        before, after = calls.get(event.call_id), replay(told[event.call_id])
        if after is not None and after != before:
            steps.append(_Step(before, after, _trace(event)))
        calls[event.call_id] = after
    return steps


def _trace(event: CallEvent) -> str | None:
    """Add an event to its call's trace; return its place there."""
    call_id, told = event.call_id, str(event.__struct_config__.tag)
    with tracing.span(f"call {told}", {"voxpria.call_id": call_id}, within=tracing.of(call_id)):
        return tracing.traceparent()


def _trace_whole(call: Call) -> None:
    """Add the whole of an ended call to its trace."""
    invited, ended = call.invited, call.ended
    assert ended is not None
    tracing.tell(
        invited.call_id,
        "call",
        began_at=invited.at,
        ended_at=ended.at,
        attributes={
            "voxpria.call_id": invited.call_id,
            "voxpria.account_id": invited.account_id,
            "voxpria.mode": invited.mode,
            "voxpria.edge_id": invited.edge_id,
            "voxpria.call.direction": invited.direction,
            "voxpria.call.status": call.status,
            "voxpria.call.sip_code": ended.sip_code,
            "voxpria.call.end_cause": ended.cause,
        },
        steps={"answered": call.answered_at},
    )


async def _close(conn: AsyncConnection, closed: Sequence[Call]) -> None:
    """Count calls that have ended, and have what was said in them fetched from who writes it down."""
    for call in closed:
        _trace_whole(call)
        if call.ended is not None and call.ended.by == "api":
            await commands.done(conn, call.invited.call_id)
    mine = [(call.invited.number_id, call) for call in closed if call.invited.number_id is not None]
    if not mine:
        return
    await numbers.count_calls(conn, [(number_id, call.duration_seconds, call.started_at) for number_id, call in mine])
    answered = [(number_id, call.invited.call_id) for number_id, call in mine if call.is_answered]
    written = await number_queries.of_engine(conn, {number_id for number_id, _ in answered}, "elevenlabs")
    ids = [call_id for number_id, call_id in answered if number_id in written]
    args = [{"call_id": call_id, **tracing.job_arguments(tracing.of(call_id))} for call_id in ids]
    if args:
        await defer_many(conn, TRANSCRIBE, args, queue="calls", delay_seconds=TRANSCRIPT_DELAY_SECONDS)


async def mark_recording_deleted(links: RecordingLinks, conn: AsyncConnection, call_id: str) -> None:
    """Have a call's record say that its recording is no longer kept."""
    event = RecordingDeleted(id=f"evt_deleted_{call_id}", call_id=call_id, at=utc_now())
    await take(links, conn, [event])


async def add_transcript(
    conn: AsyncConnection,
    call_id: str,
    segments: Sequence[tuple[Literal["agent", "caller"], str, datetime]],
    *,
    source: str,
    external_id: str | None = None,
) -> bool:
    """Keep what was said in a call (who, what, when); the one way for transcripts to come in, whoever wrote them down.

    Again is no error; the newer stands. Returns False if nothing was said, or there is no such call.
    """
    in_order = sorted(segments, key=lambda segment: segment[2])
    shown = [{"speaker": speaker, "text": text, "timestamp": iso(at)} for speaker, text, at in in_order]
    values = {"source": source, "external_id": external_id, "segments": shown, "updated_at": utc_now()}
    return bool(shown) and await queries.put_transcript(conn, {"call_id": call_id, **values})


async def reconcile(links: RecordingLinks, conn: AsyncConnection, known: OpenCalls) -> int:
    """End what the edge no longer knows as open; return how many calls."""
    open_calls = await queries.open_calls_of_edge(conn, known.edge_id, known.as_of)
    still_open = set(known.call_ids)
    lost = [call for call in open_calls if call.id not in still_open]
    detail = "The edge restarted or lost the call's state; the end is when that was seen."
    return await _lose(links, conn, [(call, known.as_of, detail) for call in lost])


async def sweep(links: RecordingLinks, conn: AsyncConnection, *, grace_seconds: int, unseen_seconds: int) -> int:
    """End calls that must be over, on edges that have fallen silent; return how many."""
    now = utc_now()
    overdue = await queries.overdue_of_job(
        conn,
        now,
        unseen_since=now - timedelta(seconds=unseen_seconds),
        grace_seconds=grace_seconds,
        limit=_OPEN_CALLS_AT_ONCE,
    )
    return await _lose(links, conn, [(call, _latest_end(call), _silence(call)) for call in overdue])


async def _lose(links: RecordingLinks, conn: AsyncConnection, lost: Sequence[tuple[Row, datetime, str]]) -> int:
    """End calls with cause `lost`, each with its time and detail."""
    ends = [
        Ended(
            id=f"evt_lost_{call.id}",
            call_id=call.id,
            at=at,
            cause="lost",
            by="edge",
            sip_code=OK if call.answered_at else 0,
            sip_reason="OK" if call.answered_at else "",
            detail=detail,
        )
        for call, at, detail in lost
    ]
    if ends:
        await take(links, conn, ends)
    for end in ends:
        _log.warning("call lost", call_id=end.call_id, detail=end.detail)
    return len(ends)


def _latest_end(call: Row) -> datetime:
    """Return when the edge would have ended the call by itself."""
    begun_at: datetime = call.answered_at or call.started_at
    return begun_at + timedelta(seconds=call.max_duration_seconds)


def _silence(call: Row) -> str:
    seen = f"has not been heard of since {iso(call.edge_seen_at)}" if call.edge_seen_at else "was never heard of"
    return f"The edge {seen}; the end is when the call's max_duration ran out."


def _row(call: Call) -> dict[str, Any]:
    invited, ended = call.invited, call.ended
    return {
        "id": invited.call_id,
        "account_id": invited.account_id,
        "mode": invited.mode,
        "phone_number": call.phone_number,
        "direction": invited.direction,
        "from_number": invited.from_,
        "to_number": invited.to,
        "number_id": invited.number_id,
        "trunk_id": invited.trunk_id,
        "agent_id": invited.agent_id,
        "status": call.status,
        "started_at": call.started_at,
        "answered_at": call.answered_at,
        "ended_at": ended.at if ended else None,
        "duration_seconds": call.duration_seconds,
        "max_duration_seconds": invited.max_duration_seconds or DEFAULT_MAX_DURATION_SECONDS,
        "sip_code": (ended.sip_code or None) if ended else None,
        "sip_reason": (ended.sip_reason or None) if ended else None,
        "end_cause": ended.cause if ended else None,
        "ended_by": ended.by if ended else None,
        "explanation": explanation(call),
        "recording": call.recording,
        "quality": quality.summarise(call.measured) if call.measured else None,
        "edge_id": invited.edge_id,
        "sip_call_id": invited.sip_call_id,
        "updated_at": utc_now(),
    }


def _announcements(links: RecordingLinks, step: _Step) -> Iterator[outbox.Happening]:
    """Yield what webhooks are told of a step."""
    call = step.after
    invited, ended = call.invited, call.ended
    if step.begins and invited.refusal is None:
        data = _announcement(links, call) | {"status": "in-progress", "duration": 0, "recording_url": None}
        data |= {"sip_code": None, "end_cause": None}
        yield outbox.Happening(invited.account_id, invited.mode, "call.started", data, invited.at, step.traceparent)
    if step.closes and ended is not None:
        kind: EventType = "call.ended" if call.is_answered else "call.failed"
        data = _announcement(links, call)
        yield outbox.Happening(invited.account_id, invited.mode, kind, data, ended.at, step.traceparent)


def _announcement(links: RecordingLinks, call: Call) -> dict[str, Any]:
    """Return the data of an event about the call, in the API reference's shape and beyond it."""
    row = _row(call)
    return {
        "call_id": row["id"],
        "phone_number": row["phone_number"],
        "direction": row["direction"],
        "status": row["status"],
        "duration": row["duration_seconds"],
        "recording_url": links.of(row["id"], status=row["status"], recording=row["recording"], now=utc_now()),
        "from": row["from_number"],
        "to": row["to_number"],
        "agent_id": row["agent_id"],
        "sip_code": row["sip_code"],
        "end_cause": row["end_cause"],
        **({"metadata": call.queued.metadata} if call.queued and call.queued.metadata else {}),
    }


def _refusal(error: sa.exc.DBAPIError) -> str:
    """Say why the database will never take an event; raise any other failure of it."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state == _FOREIGN_KEY:
        return "the account is unknown"
    if state[:2] in {_DATA_EXCEPTION, _CONSTRAINT_VIOLATION}:
        return f"it holds a value that can't be kept (SQLSTATE {state})"
    raise error
