"""Every SQL statement of this slice; account and mode are applied here.

What edges report and jobs sweep is nobody's request: those statements (`…_of_edge`, `…_of_job`) go by the call's id.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.service import Caller
from voxpria_server.calls.models import call_commands, call_transcripts, calls
from voxpria_server.calls.spans import OF_A_NUMBER, OF_ALL, Span, cut
from voxpria_server.errors import InvalidParameterError
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.pagination import PageQuery
from voxpria_server.routing.models import edges
from voxpria_server.trunks.models import phone_numbers

_call, _command = calls.c, call_commands.c

_TAKE_EVENTS = sa.text(
    "SELECT call_id, id, body"
    " FROM voxpria_take_call_events(CAST(:ids AS text[]), CAST(:call_ids AS text[]), CAST(:bodies AS bytea[]))"
)

_KEPT = (
    *("id", "account_id", "mode", "phone_number", "direction", "from_number", "to_number", "number_id", "trunk_id"),
    *("agent_id", "status", "started_at", "answered_at", "ended_at", "duration_seconds", "max_duration_seconds"),
    *("sip_code", "sip_reason", "end_cause", "ended_by", "explanation", "recording", "quality", "edge_id"),
    *("sip_call_id", "updated_at"),
)
"""What a call's events say of it."""

_PUT = sa.text(
    f"INSERT INTO calls ({', '.join(_KEPT)}, caller_location)"  # noqa: S608  (constants only)
    f" SELECT {', '.join(_KEPT)}, caller_location"
    " FROM jsonb_populate_recordset(CAST(NULL AS calls), CAST(:records AS jsonb))"
    f" ON CONFLICT (id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _KEPT)},"
    " caller_location = coalesce(excluded.caller_location, calls.caller_location)"
)

_SHOWN = (
    *("id", "phone_number", "direction", "from_number", "to_number", "agent_id", "status", "duration_seconds"),
    *("started_at", "answered_at", "ended_at", "recording", "max_duration_seconds", "has_transcript"),
    *("sip_code", "sip_reason", "end_cause", "ended_by"),
)

_FILTER = "ROW($1, $2, $3, $4, $5)::voxpria_call_filter"
_PAGE = f"""
WITH page AS MATERIALIZED (
    SELECT voxpria_count_calls({_FILTER}, $6, $7, $8) AS total,
           voxpria_page_of_calls({_FILTER}, $9, $10, $11, $12, $13, $14) AS ids
)
SELECT page.total, {", ".join(f"calls.{name}" for name in _SHOWN)},
    calls.explanation::text
FROM page LEFT JOIN LATERAL unnest(page.ids) AS found (id) ON true LEFT JOIN calls ON calls.id = found.id
ORDER BY calls.started_at DESC, calls.id DESC
"""  # noqa: S608  (constants only)
_STARTED_AT = "SELECT started_at FROM calls WHERE account_id = $1 AND mode = $2 AND id = $3"


_FULL = f"""
SELECT {", ".join(f"calls.{name}" for name in _SHOWN)}, calls.explanation::text, calls.quality::text,
    calls.caller_location, agents.name AS agent_name, call_transcripts.segments::text,
    ARRAY(SELECT body FROM call_events WHERE call_id = calls.id ORDER BY position) AS events
FROM calls LEFT JOIN agents ON (agents.id, agents.account_id, agents.mode) = (calls.agent_id, $1, $2)
LEFT JOIN call_transcripts ON call_transcripts.call_id = calls.id
WHERE calls.account_id = $1 AND calls.mode = $2 AND calls.id = $3
"""  # noqa: S608  (constants only)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a list of calls is cut down to; None is no filter. `before` is exclusive."""

    phone_number: str | None = None
    direction: str | None = None
    status: str | None = None
    since: datetime | None = None
    before: datetime | None = None

    def spans(self, before: datetime | None) -> list[Span]:
        """Return the range up to `before` in the pieces that calls are counted in."""
        return cut(self.since, before, OF_ALL if self.phone_number is None else OF_A_NUMBER)


def _mine(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.and_(_call.account_id == caller.account_id, _call.mode == caller.mode)


async def list_page(
    database: Database, caller: Caller, page: PageQuery, filters: Filters
) -> tuple[list[asyncpg.Record], int]:
    """Return one page, newest first, and how many calls fit, both of one moment.

    Raises 400 invalid_parameter if there is no call `starting_after`. The pages are found by the counts that triggers
    keep (`docs/decisions/0005-the-call-log-counts-as-it-goes.md`), so that no page costs more than the first.
    """
    counted = filters.spans(filters.before)
    listed = counted if page.starting_after is None else await _after(database, caller, page.starting_after, filters)
    rows = await database.fetch(
        _PAGE,
        *(caller.account_id, caller.mode, filters.phone_number, filters.direction, filters.status),
        *_arrays(counted),
        *_arrays(listed),
        *(page.starting_after, (page.page - 1) * page.per_page, page.per_page),
    )
    return [row for row in rows if row["id"] is not None], rows[0]["total"]


async def _after(database: Database, caller: Caller, call_id: str, filters: Filters) -> list[Span]:
    """Return the pieces of what comes after a call: first those that began in the same microsecond."""
    found = await database.fetch(_STARTED_AT, caller.account_id, caller.mode, call_id)
    if not found:
        raise InvalidParameterError("There is no call with this id.", field="starting_after", provided=call_id)
    at = found[0]["started_at"]
    just_after = at + timedelta(microseconds=1)
    if filters.before is not None and filters.before < just_after:
        return [Span("call", at, at), *filters.spans(filters.before)]
    same = [Span("call", at, just_after if filters.since is None or filters.since <= at else at)]
    return same + filters.spans(at)


def _arrays(spans: Sequence[Span]) -> tuple[list[str], list[datetime], list[datetime]]:
    return [span.level for span in spans], [span.since for span in spans], [span.before for span in spans]


async def find_full(database: Database, caller: Caller, call_id: str) -> asyncpg.Record | None:
    """Return a call with its agent's name, what was said, and its events in the order in which they were taken."""
    return await database.fetch_row(_FULL, caller.account_id, caller.mode, call_id)


async def find(conn: AsyncConnection, caller: Caller, call_id: str, *, lock: bool = False) -> Row | None:
    """Return a call's record alone; with `lock` it stays as it is until the end."""
    statement = sa.select(calls).where(_mine(caller), _call.id == call_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def add_command(conn: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Ask an edge to do something with a call; asked before is asked once."""
    await conn.execute(insert(call_commands).values(**values).on_conflict_do_nothing(index_elements=["id"]))


async def commands_of_edge(conn: AsyncConnection, edge_id: str, known: Collection[str], limit: int) -> list[Row]:
    """Return what an edge is to do beside what it knows of, oldest first."""
    statement = sa.select(call_commands).where(
        sa.or_(_command.edge_id == edge_id, _command.edge_id.is_(None)), _command.id.not_in(known)
    )
    return list(await conn.execute(statement.order_by(_command.created_at).limit(limit)))


async def take_command_of_edge(conn: AsyncConnection, command_id: str, edge_id: str, now: datetime) -> bool:
    """Give a command to an edge, unless it is another's, gone, or too old; again is no error."""
    statement = sa.update(call_commands).where(
        _command.id == command_id,
        sa.or_(_command.edge_id == edge_id, sa.and_(_command.edge_id.is_(None), _command.expires_at > now)),
    )
    taken = await conn.execute(statement.values(edge_id=edge_id).returning(_command.id))
    return taken.one_or_none() is not None


async def withdraw_command(conn: AsyncConnection, command_id: str) -> str | None:
    """Delete a command that no edge has taken; where one has, leave it and return the edge's id."""
    found = await conn.execute(sa.select(_command.edge_id).where(_command.id == command_id).with_for_update())
    edge_id: str | None = found.scalar_one_or_none()
    if edge_id is None:
        await conn.execute(sa.delete(call_commands).where(_command.id == command_id))
    return edge_id


async def drop_commands_by_id(conn: AsyncConnection, command_ids: Collection[str]) -> None:
    """Forget commands that are done."""
    await conn.execute(sa.delete(call_commands).where(_command.id.in_(command_ids)))


async def drop_commands(conn: AsyncConnection, call_id: str) -> None:
    """Forget what was to be done with a call."""
    await conn.execute(sa.delete(call_commands).where(_command.call_id == call_id))


async def drop_commands_of_ended_of_job(conn: AsyncConnection) -> int:
    """Forget what was to be done with calls that are over by now; return how much."""
    over = sa.exists().where(_call.id == _command.call_id, _call.ended_at.is_not(None))
    return (await conn.execute(sa.delete(call_commands).where(over))).rowcount


async def recording_state_of_link(conn: AsyncConnection, call_id: str) -> str | None:
    """Return how a call's recording stands; whoever holds a signed link may ask."""
    return (await conn.execute(sa.select(_call.recording).where(_call.id == call_id))).scalar_one_or_none()


async def take_events_of_edge(conn: AsyncConnection, events: Sequence[tuple[str, str, bytes]]) -> list[Row]:
    """Keep events (their id, call's id and body), in order, and keep others from changing these calls until the end.

    Returns rows with a `body`, of what was known of the calls, each call's in the order in which it was taken; and rows
    with an `id`, of the events that are new.
    """
    ids, call_ids, bodies = (list(column) for column in zip(*events, strict=True))
    return list(await conn.execute(_TAKE_EVENTS, {"ids": ids, "call_ids": call_ids, "bodies": bodies}))


async def put_of_edge(conn: AsyncConnection, records: Sequence[Mapping[str, Any]]) -> None:
    """Write calls' records; where there is one, it is brought up to date."""
    await conn.execute(_PUT, {"records": msgspec.json.encode(records).decode()})


async def open_calls_of_edge(conn: AsyncConnection, edge_id: str, opened_before: datetime) -> list[Row]:
    """Return the calls of an edge that have no end, oldest first."""
    statement = sa.select(calls).where(
        _call.edge_id == edge_id, _call.status == "in-progress", _call.started_at < opened_before
    )
    return list(await conn.execute(statement.order_by(_call.started_at)))


async def overdue_of_job(
    conn: AsyncConnection, now: datetime, *, unseen_since: datetime, grace_seconds: int, limit: int
) -> list[Row]:
    """Return calls in progress that went on too long, on edges not heard of since a time, with `edge_seen_at`.

    To be told of the call itself is to hear of its edge: it may be catching up on hours of events.
    """
    begun_at = sa.func.coalesce(_call.answered_at, _call.started_at)
    allowed = sa.func.make_interval(0, 0, 0, 0, 0, 0, _call.max_duration_seconds + grace_seconds)
    statement = (
        sa.select(*_call, edges.c.seen_at.label("edge_seen_at"))
        .outerjoin(edges, edges.c.id == _call.edge_id)
        .where(
            _call.status == "in-progress",
            begun_at + allowed < now,
            _call.updated_at < unseen_since,
            sa.or_(edges.c.seen_at.is_(None), edges.c.seen_at < unseen_since),
        )
        .order_by(_call.started_at)
        .limit(limit)
    )
    return list(await conn.execute(statement))


async def find_of_job(conn: AsyncConnection, call_id: str, *, lock: bool = False) -> Row | None:
    """Return a call, as `find` does."""
    statement = sa.select(calls).where(_call.id == call_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def put_transcript(conn: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Keep what was said in a call, in place of what was kept of it; False if there is no such call."""
    flag = sa.update(calls).where(_call.id == values["call_id"]).values(has_transcript=True).returning(_call.id)
    if (await conn.execute(flag)).one_or_none() is None:
        return False
    statement = insert(call_transcripts).values(**values)
    await conn.execute(statement.on_conflict_do_update(index_elements=["call_id"], set_=dict(values)))
    return True


async def number_of_job(conn: AsyncConnection, account_id: str, mode: str, number_id: str) -> Row | None:
    """Return a number of the call's account."""
    number = phone_numbers.c
    mine = [number.account_id == account_id, number.mode == mode, number.id == number_id]
    return (await conn.execute(sa.select(phone_numbers).where(*mine))).one_or_none()


async def callers_of_job(conn: AsyncConnection, call_ids: Sequence[str]) -> dict[str, str]:
    """Return the numbers that calls come from, by the calls' ids."""
    rows = await conn.execute(sa.select(_call.id, _call.from_number).where(_call.id.in_(call_ids)))
    return {row.id: row.from_number for row in rows}


async def set_location_of_job(conn: AsyncConnection, call_id: str, location: str) -> None:
    """Keep where a call comes from."""
    await conn.execute(sa.update(calls).where(_call.id == call_id).values(caller_location=location))
