"""Every SQL statement of this slice; account and mode are applied here."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents.models import agents
from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Database, Row, to_second
from voxpria_server.kit.pagination import PageQuery

_SHOWN = f"id, name, engine, instructions, voice, model, language, external_id, {to_second('created_at', 'updated_at')}"
"""An agent as `schemas.Agent` has it."""
_READ = f"SELECT {_SHOWN} FROM agents WHERE account_id = $1 AND mode = $2 AND id = $3"  # noqa: S608  (constants)
_COUNT = "SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE of = concat_ws(' ', 'agents', $1, $2)"


def _mine(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.and_(agents.c.account_id == caller.account_id, agents.c.mode == caller.mode)


async def list_page(database: Database, caller: Caller, page: PageQuery) -> tuple[list[dict[str, Any]], int]:
    """Return one page as it is shown, newest first, and how many there are."""
    owner = (caller.account_id, caller.mode)
    return await page.fetch(database, "agent", _SHOWN, "agents", "account_id = $1 AND mode = $2", owner, count=_COUNT)


async def read(database: Database, caller: Caller, agent_id: str) -> asyncpg.Record | None:
    """Return the agent as it is shown."""
    return await database.fetch_row(_READ, caller.account_id, caller.mode, agent_id)


async def find(conn: AsyncConnection, caller: Caller, agent_id: str, *, lock: bool = False) -> Row | None:
    """Return the agent; `lock` holds it until the transaction ends."""
    statement = sa.select(agents).where(_mine(caller), agents.c.id == agent_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def insert(conn: AsyncConnection, values: Mapping[str, Any]) -> Row:
    """Add an agent."""
    row: Row = (await conn.execute(sa.insert(agents).values(**values).returning(agents))).one()
    return row


async def update(conn: AsyncConnection, caller: Caller, agent_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change an agent."""
    statement = sa.update(agents).where(_mine(caller), agents.c.id == agent_id).values(**values).returning(agents)
    row: Row | None = (await conn.execute(statement)).one_or_none()
    return row


async def delete(conn: AsyncConnection, agent_id: str) -> None:
    """Remove an agent that `find` has locked."""
    await conn.execute(sa.delete(agents).where(agents.c.id == agent_id))
