"""The edges: what each reports of itself, and which version of the routes it has in force."""

import asyncio
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import Status

from voxpria_server.kit.db import Database, Row
from voxpria_server.routing import version
from voxpria_server.routing.models import edges

CHANNEL = "voxpria_edges"
FRESH_SECONDS = 10
"""An edge not heard of for longer than this does not count: it may be gone for good."""

_RECHECK_SECONDS = 2.0


async def report(conn: AsyncConnection, status: Status) -> None:
    """Keep what an edge says of itself."""
    parts = {name: msgspec.to_builtins(part) for name, part in status.parts.items()}
    values = {"parts": parts, "open_calls": status.open_calls, "unsent_events": status.unsent_events}
    await _upsert(conn, status.edge_id, status.applied_version, values)


async def acknowledge(conn: AsyncConnection, edge_id: str, applied_version: int) -> None:
    """Note that an edge has a version of the routes in force."""
    await _upsert(conn, edge_id, applied_version, {})


async def fresh(conn: AsyncConnection) -> list[Row]:
    """Return the edges heard of in the last 10 s."""
    since = sa.func.now() - sa.text(f"interval '{FRESH_SECONDS} s'")
    return list(await conn.execute(sa.select(edges).where(edges.c.seen_at > since).order_by(edges.c.id)))


async def is_any_there(database: Database) -> bool:
    """Tell whether an edge was heard of in the last 10 s."""
    async with database.read() as conn:
        return bool(await fresh(conn))


async def wait_until_applied(database: Database, wanted: int, timeout_seconds: float) -> bool:
    """Wait until every fresh edge, and at least one, has applied version `wanted`; False when time is up."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    with database.listener.ear(CHANNEL) as ear:
        while True:
            async with database.read() as connection:
                applied = [edge.applied_version for edge in await fresh(connection)]
            if applied and min(applied) >= wanted:
                return True
            left = database.listener.seconds_left(deadline)
            if left <= 0:
                return False
            await ear.wait(min(left, _RECHECK_SECONDS))


async def wait_until_live(database: Database, timeout_seconds: float) -> bool:
    """Wait until the edges have applied everything committed so far; False when time is up."""
    async with database.read() as connection:
        wanted = await version.current(connection)
    return await wait_until_applied(database, wanted, timeout_seconds)


async def _upsert(conn: AsyncConnection, edge_id: str, applied_version: int, values: dict[str, Any]) -> None:
    row = {"applied_version": applied_version, "seen_at": sa.func.now(), **values}
    statement = insert(edges).values(id=edge_id, **row).on_conflict_do_update(index_elements=["id"], set_=row)
    await conn.execute(statement)
    await conn.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))
