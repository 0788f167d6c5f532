"""The rules for agents."""

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents import queries
from voxpria_server.agents.schemas import AgentCreate, AgentUpdate
from voxpria_server.auth.service import Caller
from voxpria_server.errors import NotFoundError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.ids import new_id


async def create(conn: AsyncConnection, caller: Caller, body: AgentCreate) -> Row:
    """Add an agent."""
    now = utc_now()
    key = {"id": new_id("agent"), "account_id": caller.account_id, "mode": caller.mode}
    return await queries.insert(conn, {**key, **body.model_dump(), "created_at": now, "updated_at": now})


async def get(conn: AsyncConnection, caller: Caller, agent_id: str, *, lock: bool = False) -> Row:
    """Return an agent; raise 404 agent_not_found."""
    return _found(await queries.find(conn, caller, agent_id, lock=lock))


async def read(database: Database, caller: Caller, agent_id: str) -> asyncpg.Record:
    """Do as `get` does, beside any transaction."""
    row = await queries.read(database, caller, agent_id)
    if row is None:
        raise _not_found()
    return row


async def update(conn: AsyncConnection, caller: Caller, agent_id: str, body: AgentUpdate) -> Row:
    """Change what was sent."""
    values = body.model_dump(exclude_unset=True)
    return _found(await queries.update(conn, caller, agent_id, {**values, "updated_at": utc_now()}))


def _found(row: Row | None) -> Row:
    if row is None:
        raise _not_found()
    return row


def _not_found() -> NotFoundError:
    return NotFoundError("There is no agent with this id.", code="agent_not_found")
