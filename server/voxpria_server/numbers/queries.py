"""Every SQL statement of this slice; the account and mode are applied here.

The statements of a job (`…_of_job`) take a number's id alone: the job was deferred by one who owned it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents.models import agents
from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Database, Row, to_second
from voxpria_server.kit.pagination import PageQuery
from voxpria_server.numbers.models import bulk_import_rows, bulk_imports, provider_agents
from voxpria_server.trunks.models import phone_numbers, trunks
from voxpria_server.trunks.queries import uses

CHANNEL = "voxpria_numbers"
_number = phone_numbers.c
_TEXTS = sa.ARRAY(sa.Text)

_WAY = """
    (SELECT CASE
        WHEN {n}.engine IS NULL OR {n}.engine = carrier.provider THEN 'own'
        WHEN 1 = (
            SELECT count(*) FROM trunks t
            WHERE (t.account_id, t.mode, t.provider) = ({n}.account_id, {n}.mode, {n}.engine)
                AND t.id = coalesce({n}.config ->> 'engine_trunk_id', t.id)
        ) THEN 'other'
    END FROM trunks carrier WHERE carrier.id = {n}.trunk_id) AS way
"""
"""Where a number's calls are led, which is what its capabilities depend on: to its `own` trunk's server, to that of the
one `other` trunk of its engine, or nowhere (null). Other trunks are looked for only if its own is not it."""

_LISTED = (
    "id, trunk_id, engine, status, status_reason, agent_id, e164 AS number, needs_reprovision,"
    f" {to_second('created_at')}, {_WAY.format(n='phone_numbers')}"
)

_COUNT = "SELECT voxpria_count_numbers(concat_ws(' ', {on}, $1::text, $2::text), ARRAY[{statuses}], ARRAY[{engines}])"

_FULL = f"""
SELECT n.id, n.trunk_id, n.engine, n.status, n.status_reason, n.agent_id, n.e164, n.created_at, n.needs_reprovision,
    n.config::text, n.provisioned_at, n.updated_at, t.name AS trunk_name,
    (t.config ->> 'record')::boolean AS is_recorded, a.name AS agent_name, p.name AS known_name,
    p.looked_up_at AS known_at, s.total_calls, s.talk_seconds, s.last_call_at,
    {_WAY.format(n="n")}
FROM phone_numbers n JOIN trunks t ON t.id = n.trunk_id
LEFT JOIN agents a ON (a.id, a.account_id, a.mode) = (n.agent_id, n.account_id, n.mode)
LEFT JOIN provider_agents p ON (p.agent_id, p.account_id, p.mode) = (n.agent_id, n.account_id, n.mode)
LEFT JOIN phone_number_stats s ON s.phone_number_id = n.id
WHERE n.account_id = $1 AND n.mode = $2 AND n.id = $3
"""  # noqa: S608  (no text of anybody's)

_ADD = sa.text("""
INSERT INTO phone_numbers (id, account_id, mode, e164, trunk_id, engine, agent_id, config, status, is_routed,
    needs_reprovision, created_at, updated_at)
SELECT id, :account_id, :mode, e164, trunk_id, engine, agent_id, CAST(config AS jsonb), 'provisioning', false, false,
    :at, :at
FROM unnest(CAST(:id AS text[]), CAST(:e164 AS text[]), CAST(:trunk_id AS text[]), CAST(:engine AS text[]),
    CAST(:agent_id AS text[]), CAST(:config AS text[])) AS given (id, e164, trunk_id, engine, agent_id, config)
ON CONFLICT (account_id, mode, e164) DO NOTHING
RETURNING id
""")

_COUNT_CALLS = sa.text("""
INSERT INTO phone_number_stats AS s (phone_number_id, total_calls, talk_seconds, last_call_at)
SELECT n.id, given.count, given.seconds, given.latest
FROM unnest(CAST(:number_ids AS text[]), CAST(:counts AS bigint[]), CAST(:seconds AS bigint[]),
    CAST(:latest AS timestamptz[])) AS given (id, count, seconds, latest)
JOIN phone_numbers n ON n.id = given.id
ORDER BY n.id
ON CONFLICT (phone_number_id) DO UPDATE SET
    total_calls = s.total_calls + excluded.total_calls,
    talk_seconds = s.talk_seconds + excluded.talk_seconds,
    last_call_at = greatest(s.last_call_at, excluded.last_call_at)
""")
"""In the order of ids, so that two edges' batches never wait for each other in a ring."""


def _mine(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.and_(_number.account_id == caller.account_id, _number.mode == caller.mode)


def is_pending() -> sa.ColumnElement[bool]:
    """Say, in SQL, that provisioning has been asked for and has not ended."""
    return sa.or_(_number.status == "provisioning", sa.and_(_number.status == "active", _number.needs_reprovision))


async def list_page(
    database: Database, caller: Caller, page: PageQuery, filters: Mapping[str, str | None]
) -> tuple[list[dict[str, Any]], int]:
    """Return one page, newest first, and how many fit the filters (column -> value; None is no filter)."""
    wanted, args = "account_id = $1 AND mode = $2", [caller.account_id, caller.mode]
    given: dict[str, str] = {}
    for name, value in filters.items():
        if value is not None:
            args.append(value)
            given[name] = f"${len(args)}::text"
            wanted += f" AND {name} = ${len(args)}::text"
    count = _COUNT.format(
        on=f"'numbers on', {given['trunk_id']}" if "trunk_id" in given else "'numbers'",
        statuses=given.get("status", "'provisioning', 'active', 'inactive'"),
        engines=given.get("engine", "'none', 'elevenlabs', 'openai'"),
    )
    return await page.fetch(database, "phone", _LISTED, "phone_numbers", wanted, args, count=count)


async def find(conn: AsyncConnection, caller: Caller, number_id: str, *, lock: bool = False) -> Row | None:
    """Return the number; `lock` holds it until the transaction ends."""
    statement = sa.select(phone_numbers).where(_mine(caller), _number.id == number_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def find_e164(conn: AsyncConnection, caller: Caller, e164: str) -> Row | None:
    """Return the number as it is dialled."""
    statement = sa.select(phone_numbers).where(_mine(caller), _number.e164 == e164)
    return (await conn.execute(statement)).one_or_none()


async def find_full(database: Database, caller: Caller, number_id: str) -> asyncpg.Record | None:
    """Return the number with its trunk's and agent's names and its sums."""
    return await database.fetch_row(_FULL, caller.account_id, caller.mode, number_id)


async def keep_agent_name(conn: AsyncConnection, caller: Caller, agent_id: str, name: str | None, at: datetime) -> None:
    """Keep what ElevenLabs said of an agent."""
    key = {"account_id": caller.account_id, "mode": caller.mode, "agent_id": agent_id}
    said = {"name": name, "looked_up_at": at}
    statement = insert(provider_agents).values(**key, **said)
    await conn.execute(statement.on_conflict_do_update(index_elements=list(key), set_=said))


async def add(conn: AsyncConnection, caller: Caller, numbers: Sequence[Mapping[str, Any]], at: datetime) -> set[str]:
    """Add numbers; return the ids of those that the account did not have already."""
    columns = {name: [number[name] for number in numbers] for name in ("id", "e164", "trunk_id", "engine", "agent_id")}
    configs = [msgspec.json.encode(number["config"]).decode() for number in numbers]
    values = {"account_id": caller.account_id, "mode": caller.mode, "at": at, "config": configs, **columns}
    return set((await conn.execute(_ADD, values)).scalars())


async def imported(conn: AsyncConnection, caller: Caller, e164s: Collection[str]) -> set[str]:
    """Return which of these numbers the account has already."""
    statement = sa.select(_number.e164).where(_mine(caller), _number.e164 == sa.any_(sa.literal(list(e164s), _TEXTS)))
    return set((await conn.execute(statement)).scalars())


async def trunks_to_use(conn: AsyncConnection, caller: Caller, ids: Collection[str]) -> dict[str, Row]:
    """Return those of these trunks that the account has, by id, and keep them until the transaction ends."""
    statement = sa.select(trunks).where(
        trunks.c.id == sa.any_(sa.literal(list(ids), _TEXTS)),
        trunks.c.account_id == caller.account_id,
        trunks.c.mode == caller.mode,
    )
    held = statement.order_by(trunks.c.id).with_for_update(read=True, key_share=True)
    return {trunk.id: trunk for trunk in await conn.execute(held)}


async def update(conn: AsyncConnection, number_id: str, values: Mapping[str, Any]) -> Row:
    """Change a number that `find` has locked."""
    statement = sa.update(phone_numbers).where(_number.id == number_id).values(**values).returning(phone_numbers)
    row: Row = (await conn.execute(statement)).one()
    return row


async def delete(conn: AsyncConnection, caller: Caller, number_id: str) -> bool:
    """Remove a number; False if there is none."""
    statement = sa.delete(phone_numbers).where(_mine(caller), _number.id == number_id).returning(_number.id)
    return (await conn.execute(statement)).one_or_none() is not None


async def restart_all(conn: AsyncConnection, caller: Caller, trunk: Row, at: datetime) -> list[str]:
    """Ask anew for the provisioning of every number of a trunk that is not switched off; return their ids."""
    statement = (
        sa.update(phone_numbers)
        .where(_mine(caller), uses(trunk), ~_number.is_switched_off)
        .values(
            status=sa.case((_number.status == "active", "active"), else_="provisioning"),
            status_reason=None,
            needs_reprovision=True,
            updated_at=at,
        )
        .returning(_number.id)
    )
    return [row.id for row in await conn.execute(statement)]


async def count_pending(conn: AsyncConnection, ids: Sequence[str]) -> tuple[int, int]:
    """Return how many of these numbers are still being provisioned, and how many failed."""
    pending = sa.func.count().filter(is_pending())
    failed = sa.func.count().filter(_number.status == "inactive")
    row = (await conn.execute(sa.select(pending, failed).where(_number.id.in_(ids)))).one()
    return row[0], row[1]


async def find_of_job(conn: AsyncConnection, number_id: str) -> Row | None:
    """Return a number to be provisioned, unless it is gone or the work is done."""
    statement = sa.select(phone_numbers).where(_number.id == number_id, is_pending())
    return (await conn.execute(statement)).one_or_none()


async def trunks_of_job(conn: AsyncConnection, number_ids: Collection[str]) -> dict[str, Row]:
    """Return the trunks of numbers that are being provisioned, by the numbers' ids; none is changed meanwhile."""
    theirs = sa.select(_number.trunk_id).where(_among(number_ids), is_pending())
    held = sa.select(trunks).where(trunks.c.id.in_(theirs)).order_by(trunks.c.id).with_for_update(read=True)
    found = {trunk.id: trunk for trunk in await conn.execute(held)}
    pending = sa.select(_number.id, _number.trunk_id).where(_among(number_ids), is_pending())
    return {row.id: found[row.trunk_id] for row in await conn.execute(pending) if row.trunk_id in found}


async def change_of_job(conn: AsyncConnection, number_ids: Collection[str], values: Mapping[str, Any]) -> list[Row]:
    """Change those of these numbers that are still being provisioned, and wake who waits; return them."""
    held = sa.select(_number.id).where(_among(number_ids), is_pending()).order_by(_number.id)
    statement = (
        sa.update(phone_numbers)
        .where(_number.id.in_(held.with_for_update(key_share=True)))
        .values(**values, updated_at=sa.func.now())
        .returning(phone_numbers, sa.func.pg_notify(CHANNEL, ""))
    )
    return list(await conn.execute(statement))


def _among(number_ids: Collection[str]) -> sa.ColumnElement[bool]:
    return _number.id == sa.any_(sa.literal(list(number_ids), _TEXTS))


async def resume_of_job(conn: AsyncConnection, limit: int) -> list[Row]:
    """Take numbers from among those that wait for an edge, the longest waiting first; return them."""
    waiting = (
        sa.select(_number.id)
        .where(_number.edge_awaited_since.is_not(None))
        .order_by(_number.edge_awaited_since)
        .limit(limit)
        .with_for_update()
    )
    statement = (
        sa.update(phone_numbers)
        .where(_number.id.in_(waiting))
        .values(
            status=sa.case((_number.status == "active", "active"), else_="provisioning"),
            edge_awaited_since=None,
            updated_at=sa.func.now(),
        )
        .returning(_number.id, _number.mode, _number.engine)
    )
    return list(await conn.execute(statement))


async def give_up_of_job(conn: AsyncConnection, before: datetime, reason: str, limit: int) -> int:
    """Call numbers inactive that have waited for an edge since before that time; return how many. They wait on."""
    overdue = (
        sa.select(_number.id)
        .where(_number.edge_awaited_since < before, _number.status == "provisioning")
        .order_by(_number.edge_awaited_since)
        .limit(limit)
        .with_for_update()
    )
    values = {"status": "inactive", "status_reason": reason, "updated_at": sa.func.now()}
    statement = sa.update(phone_numbers).where(_number.id.in_(overdue)).values(**values).returning(_number.id)
    count = len((await conn.execute(statement)).all())
    await conn.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
    return count


async def edge_awaited_since_of_job(conn: AsyncConnection) -> datetime | None:
    """Return since when the last number that waits for an edge does; None if none does."""
    since: datetime | None = (await conn.execute(sa.select(sa.func.max(_number.edge_awaited_since)))).scalar_one()
    return since


async def trunk_of_job(conn: AsyncConnection, account_id: str, mode: str, trunk_id: str) -> Row | None:
    """Return a trunk of the number's account."""
    statement = sa.select(trunks).where(
        trunks.c.id == trunk_id, trunks.c.account_id == account_id, trunks.c.mode == mode
    )
    return (await conn.execute(statement)).one_or_none()


async def trunks_of_engine(conn: AsyncConnection, account_id: str, mode: str, engine: str) -> list[Row]:
    """Return the account's trunks of an engine."""
    statement = sa.select(trunks).where(
        trunks.c.provider == engine, trunks.c.account_id == account_id, trunks.c.mode == mode
    )
    return list(await conn.execute(statement.order_by(trunks.c.id)))


async def agent_external_id(conn: AsyncConnection, account_id: str, mode: str, agent_id: str) -> str | None:
    """Return the provider's id of one of the account's agents; None if it is no agent of ours, or has none."""
    statement = sa.select(agents.c.external_id).where(
        agents.c.id == agent_id, agents.c.account_id == account_id, agents.c.mode == mode
    )
    return (await conn.execute(statement)).scalar_one_or_none()


async def our_agents(conn: AsyncConnection, account_id: str, mode: str, ids: Collection[str]) -> set[str]:
    """Return which of these agents the account has, and keep them from being deleted until the transaction ends."""
    statement = sa.select(agents.c.id).where(
        agents.c.id == sa.any_(sa.literal(list(ids), _TEXTS)), agents.c.account_id == account_id, agents.c.mode == mode
    )
    held = statement.order_by(agents.c.id).with_for_update(read=True, key_share=True)
    return set((await conn.execute(held)).scalars())


async def count_of_agent(conn: AsyncConnection, caller: Caller, agent_id: str) -> int:
    """Return how many numbers an agent answers."""
    statement = sa.select(sa.func.count()).select_from(phone_numbers).where(_mine(caller), _number.agent_id == agent_id)
    return int((await conn.execute(statement)).scalar_one())


async def unassign_agent(conn: AsyncConnection, caller: Caller, agent_id: str, at: datetime) -> None:
    """Leave the numbers of an agent without one; a provider that was told of it has to be told again."""
    was_told = sa.and_(_number.engine == "elevenlabs", _number.provisioned_at.is_not(None))
    statement = sa.update(phone_numbers).where(_mine(caller), _number.agent_id == agent_id)
    await conn.execute(
        statement.values(agent_id=None, needs_reprovision=sa.or_(_number.needs_reprovision, was_told), updated_at=at)
    )


async def add_import(
    conn: AsyncConnection, caller: Caller, import_id: str, rows: Sequence[Mapping[str, Any]], at: datetime
) -> None:
    """Keep a batch that is to be imported, its rows counted from 1."""
    values = {"id": import_id, "account_id": caller.account_id, "mode": caller.mode, "key_id": caller.key_id}
    await conn.execute(sa.insert(bulk_imports).values(**values, created_at=at))
    pending = [
        {
            "import_id": import_id,
            "position": position,
            "body": dict(row),
            "phone_number": number if isinstance(number := row.get("phone_number"), str) else None,
            "status": "pending",
        }
        for position, row in enumerate(rows, start=1)
    ]
    await conn.execute(sa.insert(bulk_import_rows), pending)


async def find_import(conn: AsyncConnection, caller: Caller, import_id: str) -> Row | None:
    """Return a queued import."""
    mine = sa.and_(bulk_imports.c.account_id == caller.account_id, bulk_imports.c.mode == caller.mode)
    return (await conn.execute(sa.select(bulk_imports).where(mine, bulk_imports.c.id == import_id))).one_or_none()


async def rows_of_import(conn: AsyncConnection, import_id: str) -> list[Row]:
    """Return the rows of an import (which the caller has been shown to own), in order."""
    columns = bulk_import_rows.c
    return list(
        await conn.execute(
            sa.select(columns.position, columns.phone_number, columns.status, columns.number_id, columns.error)
            .where(columns.import_id == import_id)
            .order_by(columns.position)
        )
    )


async def next_row_of_job(conn: AsyncConnection, import_id: str) -> Row | None:
    """Return the first row of an import that has no verdict, with whose it is; held until the transaction ends."""
    columns = bulk_import_rows.c
    owner = bulk_imports.c
    statement = (
        sa.select(columns.position, columns.body, owner.account_id, owner.mode, owner.key_id)
        .join(bulk_imports, owner.id == columns.import_id)
        .where(columns.import_id == import_id, columns.status == "pending")
        .order_by(columns.position)
        .limit(1)
        .with_for_update(of=bulk_import_rows)
    )
    return (await conn.execute(statement)).one_or_none()


async def keep_verdict_of_job(conn: AsyncConnection, import_id: str, verdict: Mapping[str, Any]) -> None:
    """Keep what came of a row."""
    columns = bulk_import_rows.c
    statement = sa.update(bulk_import_rows).where(
        columns.import_id == import_id, columns.position == verdict["row"], columns.status == "pending"
    )
    values = {"status": verdict["status"], "number_id": verdict["id"], "error": verdict["error"]}
    await conn.execute(statement.values(**values))


async def complete_import_of_job(conn: AsyncConnection, import_id: str, at: datetime) -> None:
    """Note that every row has its verdict."""
    columns = bulk_imports.c
    statement = sa.update(bulk_imports).where(columns.id == import_id, columns.completed_at.is_(None))
    await conn.execute(statement.values(completed_at=at))


async def purge_imports_of_job(conn: AsyncConnection, before: datetime) -> int:
    """Remove the imports that were completed before that time; return how many."""
    statement = sa.delete(bulk_imports).where(bulk_imports.c.completed_at < before).returning(bulk_imports.c.id)
    return len((await conn.execute(statement)).all())


async def count_calls(conn: AsyncConnection, sums: Sequence[tuple[str, int, int, datetime]]) -> None:
    """Add to numbers' sums: each number's id, calls, seconds of talk, and latest call. A deleted one is passed over."""
    number_ids, counts, seconds, latest = (list(column) for column in zip(*sums, strict=True))
    values = {"number_ids": number_ids, "counts": counts, "seconds": seconds, "latest": latest}
    await conn.execute(_COUNT_CALLS, values)


async def of_engine(conn: AsyncConnection, number_ids: Collection[str], engine: str) -> set[str]:
    """Return those of these numbers, of edges' reports, that an engine answers."""
    statement = sa.select(_number.id).where(_number.id.in_(number_ids), _number.engine == engine)
    return set((await conn.execute(statement)).scalars())
