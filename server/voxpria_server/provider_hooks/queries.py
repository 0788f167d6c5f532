"""Every SQL statement of this slice. A hook names a trunk; the trunk says whose account and mode it is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.agents.models import agents
from voxpria_server.calls.models import calls
from voxpria_server.kit.db import Row
from voxpria_server.provider_hooks.models import provider_call_turns, provider_calls
from voxpria_server.trunks.models import phone_numbers, trunks

CHANNEL = "voxpria_accepted_calls"
_call, _turn = provider_calls.c, provider_call_turns.c


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
        .where(_is(trunk_id, provider_call_id), _call.status == "pending")
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
    statement = sa.update(provider_calls).where(_is(trunk_id, provider_call_id), _call.status == "pending")
    await conn.execute(statement.values(**values, updated_at=at))


async def to_be_heard(conn: AsyncConnection) -> None:
    """Tell those who hear calls of a new one, once this is committed."""
    await conn.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))


async def claim_heard(conn: AsyncConnection, at_most: int, at: datetime, until: datetime) -> Sequence[Row]:
    """Take accepted calls that nobody hears, until the lease ends."""
    unheard = (
        sa.select(_call.trunk_id, _call.provider_call_id)
        .where(_call.heard_until <= at)
        .order_by(_call.heard_until)
        .limit(at_most)
        .with_for_update(skip_locked=True)
        .cte("unheard")
    )
    statement = (
        sa.update(provider_calls)
        .where(_call.trunk_id == unheard.c.trunk_id, _call.provider_call_id == unheard.c.provider_call_id)
        .values(heard_until=until)
        .returning(_call.trunk_id, _call.provider_call_id, _call.call_id)
    )
    return (await conn.execute(statement)).all()


async def hold_heard(conn: AsyncConnection, mine: Sequence[tuple[str, str]], until: datetime) -> None:
    """Move the end of the lease of calls that are being heard."""
    key = sa.tuple_(_call.trunk_id, _call.provider_call_id)
    statement = sa.update(provider_calls).where(key.in_(mine), _call.heard_until.is_not(None))
    await conn.execute(statement.values(heard_until=until))


async def find_heard(conn: AsyncConnection, trunk_id: str, provider_call_id: str) -> Row | None:
    """Return what opens the socket of an accepted call, and whether our own call `is_open`."""
    is_call = sa.and_(
        calls.c.id == _call.call_id, calls.c.account_id == trunks.c.account_id, calls.c.mode == trunks.c.mode
    )
    statement = (
        sa.select(
            trunks.c.mode,
            trunks.c.config["server"].astext.label("server"),
            trunks.c.sealed_credentials,
            (calls.c.status == "in-progress").label("is_open"),
        )
        .select_from(provider_calls)
        .join(trunks, trunks.c.id == _call.trunk_id)
        .outerjoin(calls, is_call)
        .where(_is(trunk_id, provider_call_id))
    )
    return (await conn.execute(statement)).one_or_none()


async def may_speak_first(conn: AsyncConnection, trunk_id: str, provider_call_id: str, since: datetime) -> bool:
    """Take the order to have the agent begin: there is one once, and none for a call accepted before `since`."""
    statement = (
        sa.update(provider_calls)
        .where(_is(trunk_id, provider_call_id), _call.speaks_first, _call.updated_at >= since)
        .values(speaks_first=False)
        .returning(_call.event_id)
    )
    return (await conn.execute(statement)).one_or_none() is not None


async def add_turns(conn: AsyncConnection, turns: Sequence[Mapping[str, Any]]) -> None:
    """Keep what was said, each turn once."""
    await conn.execute(insert(provider_call_turns).on_conflict_do_nothing(), turns)


async def take_turns(conn: AsyncConnection, trunk_id: str, provider_call_id: str) -> Sequence[Row]:
    """Return all that was said in a call and keep it no longer; nobody is to hear it any more."""
    await conn.execute(sa.update(provider_calls).where(_is(trunk_id, provider_call_id)).values(heard_until=None))
    statement = sa.delete(provider_call_turns).where(
        _turn.trunk_id == trunk_id, _turn.provider_call_id == provider_call_id
    )
    return (await conn.execute(statement.returning(_turn.speaker, _turn.words, _turn.said_at))).all()


async def purge(conn: AsyncConnection, before: datetime) -> int:
    """Forget calls that came in before that time; return how many."""
    statement = sa.delete(provider_calls).where(_call.received_at < before).returning(_call.event_id)
    return len((await conn.execute(statement)).all())


def _is(trunk_id: str, provider_call_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_call.trunk_id == trunk_id, _call.provider_call_id == provider_call_id)
