"""Every SQL statement of this slice. A hook names a trunk; the trunk says whose account and mode it is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents.models import agents
from voxpria_server.calls.models import calls
from voxpria_server.kit.db import Row
from voxpria_server.provider_hooks.models import provider_calls
from voxpria_server.trunks.models import phone_numbers, trunks

_call = provider_calls.c


async def find_trunk(conn: AsyncConnection, trunk_id: str) -> Row | None:
    """Return an OpenAI trunk that has been provisioned."""
    statement = sa.select(trunks).where(
        trunks.c.id == trunk_id, trunks.c.provider == "openai", trunks.c.provisioned_at.is_not(None)
    )
    return (await conn.execute(statement)).one_or_none()


async def add_call(conn: AsyncConnection, values: Mapping[str, Any]) -> bool:
    """Keep a ringing call; False if it is known, or its event has been taken before."""
    statement = insert(provider_calls).values(**values).on_conflict_do_nothing().returning(_call.event_id)
    return (await conn.execute(statement)).one_or_none() is not None


async def find_pending(conn: AsyncConnection, trunk_id: str, provider_call_id: str) -> Row | None:
    """Return a call that has not been answered, with its trunk."""
    statement = (
        sa.select(
            provider_calls,
            trunks.c.account_id,
            trunks.c.mode,
            trunks.c.config["server"].astext.label("server"),
            trunks.c.sealed_credentials,
            trunks.c.id.label("owner"),
        )
        .join(trunks, trunks.c.id == _call.trunk_id)
        .where(_call.trunk_id == trunk_id, _call.provider_call_id == provider_call_id, _call.status == "pending")
    )
    return (await conn.execute(statement)).one_or_none()


async def find_open_call(conn: AsyncConnection, account_id: str, mode: str, call_id: str) -> Row | None:
    """Return a call of the account that is going on, with its number's config and its agent."""
    is_number = sa.and_(
        phone_numbers.c.id == calls.c.number_id,
        phone_numbers.c.account_id == calls.c.account_id,
        phone_numbers.c.mode == calls.c.mode,
    )
    is_agent = sa.and_(
        agents.c.id == sa.func.coalesce(calls.c.agent_id, phone_numbers.c.agent_id),
        agents.c.account_id == calls.c.account_id,
        agents.c.mode == calls.c.mode,
    )
    statement = (
        sa.select(
            calls.c.id,
            phone_numbers.c.engine,
            phone_numbers.c.config,
            agents.c.instructions,
            agents.c.voice,
            agents.c.model,
            agents.c.language,
        )
        .select_from(calls)
        .join(phone_numbers, is_number)
        .outerjoin(agents, is_agent)
        .where(
            calls.c.id == call_id,
            calls.c.account_id == account_id,
            calls.c.mode == mode,
            calls.c.status == "in-progress",
        )
    )
    return (await conn.execute(statement)).one_or_none()


async def close(
    conn: AsyncConnection, trunk_id: str, provider_call_id: str, values: Mapping[str, Any], at: datetime
) -> None:
    """Keep what became of a call."""
    statement = sa.update(provider_calls).where(
        _call.trunk_id == trunk_id, _call.provider_call_id == provider_call_id, _call.status == "pending"
    )
    await conn.execute(statement.values(**values, updated_at=at))


async def purge(conn: AsyncConnection, before: datetime) -> int:
    """Forget calls that came in before that time; return how many."""
    statement = sa.delete(provider_calls).where(_call.received_at < before).returning(_call.event_id)
    return len((await conn.execute(statement)).all())
