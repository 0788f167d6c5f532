"""Every SQL statement of this slice; account and mode are applied here."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Database, Row, to_second
from voxpria_server.kit.pagination import PageQuery
from voxpria_server.trunks.models import phone_numbers, trunk_registrations, trunks

_LISTED = f"""
id, name, provider, status, {to_second("created_at")},
(SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE of = concat_ws(' ', 'numbers on', trunks.id))
    AS phone_numbers_count
"""  # noqa: S608  (constants)
"""A line of the list as `schemas.TrunkListed` has it."""
_COUNT = "SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE of = concat_ws(' ', 'trunks', $1, $2, $3)"
_READ = """
SELECT id, name, provider, status, config::text, health_status, health_checked_at, health_latency_ms, health_detail,
    provisioned_at, created_at, updated_at,
    coalesce((
        SELECT json_agg(json_build_object('id', n.id, 'number', n.e164, 'status', n.status) ORDER BY n.id DESC)
        FROM (SELECT id, e164, status FROM phone_numbers WHERE trunk_id = trunks.id ORDER BY id DESC LIMIT 1000) AS n
    ), '[]')::text AS phone_numbers,
    coalesce((
        SELECT json_agg(json_build_object(
            'edge_id', r.edge_id,
            'status', CASE WHEN r.status = 'registered' AND r.expires_at < now() THEN 'lapsed' ELSE r.status END,
            'expires_at', to_char(r.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'checked_at', to_char(r.checked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
            'sip_code', r.sip_code, 'detail', r.detail, 'mend', r.mend
        ) ORDER BY r.edge_id)
        FROM trunk_registrations AS r WHERE r.trunk_id = trunks.id
    ), '[]')::text AS registrations
FROM trunks WHERE account_id = $1 AND mode = $2 AND id = $3
"""
EDGES_WORD = sa.text("interval '15 min'")
"""How long what an edge found stands, without the control plane looking itself: longer than edges keep silent."""


def _mine(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.and_(trunks.c.account_id == caller.account_id, trunks.c.mode == caller.mode)


async def list_page(
    database: Database, caller: Caller, page: PageQuery, provider: str | None
) -> tuple[list[dict[str, Any]], int]:
    """Return one page with each trunk's count of numbers, newest first, and how many there are."""
    wanted = "account_id = $1 AND mode = $2 AND ($3::text IS NULL OR provider = $3)"
    args = (caller.account_id, caller.mode, provider)
    return await page.fetch(database, "trunk", _LISTED, "trunks", wanted, args, count=_COUNT)


async def read(database: Database, caller: Caller, trunk_id: str) -> asyncpg.Record | None:
    """Return the trunk in full, its numbers (newest first, at most 1000) as JSON."""
    return await database.fetch_row(_READ, caller.account_id, caller.mode, trunk_id)


async def find(conn: AsyncConnection, caller: Caller, trunk_id: str, *, lock: bool = False) -> Row | None:
    """Return the trunk; `lock` holds it until the transaction ends."""
    statement = sa.select(trunks).where(_mine(caller), trunks.c.id == trunk_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def has_active_numbers(conn: AsyncConnection, trunk_id: str) -> bool:
    """Tell whether calls may be coming in through the trunk."""
    columns = phone_numbers.c
    found = sa.exists().where(columns.trunk_id == trunk_id, columns.status == "active")
    return bool((await conn.execute(sa.select(found))).scalar_one())


async def is_name_taken(conn: AsyncConnection, caller: Caller, name: str) -> bool:
    """Tell whether a trunk of the caller's has this name."""
    found = sa.exists().where(_mine(caller), trunks.c.name == name)
    return bool((await conn.execute(sa.select(found))).scalar_one())


async def add(conn: AsyncConnection, values: Mapping[str, Any]) -> Row | None:
    """Add a trunk; None if its name is taken."""
    statement = insert(trunks).values(**values).on_conflict_do_nothing(index_elements=["account_id", "mode", "name"])
    row: Row | None = (await conn.execute(statement.returning(trunks))).one_or_none()
    return row


async def update(conn: AsyncConnection, trunk_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change a trunk that `find` has locked; None if its new name is taken."""
    statement = sa.update(trunks).where(trunks.c.id == trunk_id).values(**values).returning(trunks)
    try:
        async with conn.begin_nested():
            row: Row = (await conn.execute(statement)).one()
    except sa.exc.IntegrityError:
        return None
    return row


async def hold(conn: AsyncConnection, caller: Caller, trunk_ids: Sequence[str]) -> set[str]:
    """Return which of these trunks the caller has, kept from being deleted until the transaction ends."""
    if not trunk_ids:
        return set()
    statement = sa.select(trunks.c.id).where(_mine(caller), trunks.c.id.in_(trunk_ids)).order_by(trunks.c.id)
    return set((await conn.execute(statement.with_for_update(read=True, key_share=True))).scalars())


def uses(trunk: Row) -> sa.ColumnElement[bool]:
    """Say, in SQL, that a number's calls come or go through a trunk: it is on it, or takes it for its engine."""
    columns = phone_numbers.c
    named = columns.config["engine_trunk_id"].as_string()
    goes_there = sa.and_(
        columns.account_id == trunk.account_id,
        columns.mode == trunk.mode,
        columns.engine == trunk.provider,
        sa.or_(named.is_(None), named == trunk.id),
        columns.trunk_id.in_(sa.select(trunks.c.id).where(trunks.c.provider == "generic")),
    )
    return sa.or_(columns.trunk_id == trunk.id, goes_there)


async def mark_numbers(conn: AsyncConnection, trunk: Row) -> None:
    """Say of every number of a trunk that the provider may still hold the trunk's old settings."""
    statement = sa.update(phone_numbers).where(uses(trunk), phone_numbers.c.provisioned_at.is_not(None))
    await conn.execute(statement.values(needs_reprovision=True))


async def forget_failover(conn: AsyncConnection, caller: Caller, trunk_id: str) -> None:
    """Take a trunk out of the other trunks' failovers."""
    path = sa.literal("{failover_trunk_ids}").cast(ARRAY(sa.Text))
    left = trunks.c.config["failover_trunk_ids"].op("-")(sa.literal(trunk_id, sa.Text))
    statement = sa.update(trunks).where(_mine(caller), trunks.c.config["failover_trunk_ids"].has_key(trunk_id))
    await conn.execute(statement.values(config=sa.func.jsonb_set(trunks.c.config, path, left)))


async def delete(conn: AsyncConnection, trunk_id: str) -> None:
    """Remove a trunk that `find` has locked, with its numbers."""
    await conn.execute(sa.delete(phone_numbers).where(phone_numbers.c.trunk_id == trunk_id))
    await conn.execute(sa.delete(trunks).where(trunks.c.id == trunk_id))


async def due_of_job(conn: AsyncConnection, limit: int) -> list[str]:
    """Return the trunks whose health is to be looked at, the longest due first."""
    statement = sa.select(trunks.c.id).where(trunks.c.health_next_at <= sa.func.now())
    return list((await conn.execute(statement.order_by(trunks.c.health_next_at).limit(limit))).scalars())


async def find_of_job(conn: AsyncConnection, trunk_id: str) -> Row | None:
    """Return a trunk, whosever it is: the job was deferred for it."""
    return (await conn.execute(sa.select(trunks).where(trunks.c.id == trunk_id))).one_or_none()


async def set_health(conn: AsyncConnection, trunk_id: str, as_of: datetime, values: Mapping[str, Any]) -> None:
    """Keep how a trunk was found, unless it was changed, and so asked, since `as_of`."""
    statement = sa.update(trunks).where(trunks.c.id == trunk_id, trunks.c.updated_at == as_of)
    await conn.execute(statement.values(**values))


async def set_found_of_edge(conn: AsyncConnection, edge_id: str, found: Sequence[Mapping[str, Any]]) -> None:
    """Keep how an edge found trunks' servers, each unless its trunk has another server by now.

    Of several edges the one that finds a server the worst has the word, as long as it goes on to say so.
    """
    columns = trunks.c
    given: dict[str, sa.BindParameter[Any]] = {
        name: sa.bindparam(f"given_{name}") for name in ("status", "detail", "latency_ms", "checked_at")
    }
    is_same_server = sa.and_(
        columns.config["server"].as_string() == sa.bindparam("given_server"),
        columns.config["port"].as_integer() == sa.bindparam("given_port"),
        columns.config["transport"].as_string() == sa.bindparam("given_transport"),
    )
    has_the_word = sa.or_(
        columns.health_edge_id.is_(None),
        columns.health_edge_id == edge_id,
        sa.cast(given["status"], sa.Text) != "reachable",
        columns.health_checked_at < sa.func.now() - EDGES_WORD,
    )
    statement = sa.update(trunks).where(columns.id == sa.bindparam("given_trunk_id"), is_same_server, has_the_word)
    values = {f"health_{name}": value for name, value in given.items()}
    statement = statement.values(
        **values, health_failures=0, health_edge_id=edge_id, health_next_at=sa.func.now() + EDGES_WORD
    )
    await conn.execute(statement, [{f"given_{name}": value for name, value in one.items()} for one in found])


async def set_registration_of_edge(
    conn: AsyncConnection, edge_id: str, trunk_id: str, values: Mapping[str, Any]
) -> None:
    """Keep how an edge's registration with a trunk's server stands; nothing for a trunk that is gone."""
    row = {"trunk_id": trunk_id, "edge_id": edge_id, **values}
    is_there = sa.select(*(sa.literal(v, trunk_registrations.c[n].type) for n, v in row.items())).where(
        sa.exists().where(trunks.c.id == trunk_id)
    )
    statement = insert(trunk_registrations).from_select(list(row), is_there)
    await conn.execute(statement.on_conflict_do_update(index_elements=["trunk_id", "edge_id"], set_=dict(values)))


async def forget_registration_of_edge(conn: AsyncConnection, edge_id: str, trunk_id: str) -> None:
    """Forget the registration that an edge no longer has."""
    columns = trunk_registrations.c
    await conn.execute(sa.delete(trunk_registrations).where(columns.trunk_id == trunk_id, columns.edge_id == edge_id))


async def registrations(conn: AsyncConnection, caller: Caller, trunk_id: str) -> list[Row]:
    """Return the edges' registrations for a trunk of the caller's."""
    columns = trunk_registrations.c
    statement = sa.select(trunk_registrations).join(trunks).where(_mine(caller), columns.trunk_id == trunk_id)
    return list(await conn.execute(statement.order_by(columns.edge_id)))
