"""Every SQL statement of the routes: for edges of all accounts at once, for a caller of their own account and mode."""

from collections.abc import AsyncIterator, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.snapshot import NUMBERS_A_LINE

from voxpria_server.accounts.models import accounts, plans
from voxpria_server.agents.models import agents
from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Row
from voxpria_server.routing.models import route_changes
from voxpria_server.trunks.models import phone_numbers, trunks

_FETCHED_AT_ONCE = 10 * NUMBERS_A_LINE


def _trunks() -> sa.Select[Any]:
    columns = trunks.c
    return sa.select(
        columns.id,
        columns.account_id,
        columns.mode,
        columns.name,
        columns.provider,
        columns.config,
        columns.sealed_credentials,
        columns.health_status,
        columns.health_detail,
    ).order_by(columns.id)


def _numbers() -> sa.Select[Any]:
    """Select what a route is made of; by columns, as to decode a number's config costs more than all the rest."""
    columns = phone_numbers.c
    is_agent = sa.and_(
        agents.c.id == columns.agent_id, agents.c.account_id == columns.account_id, agents.c.mode == columns.mode
    )
    return (
        sa.select(
            columns.id,
            columns.e164,
            columns.account_id,
            columns.mode,
            columns.trunk_id,
            columns.engine,
            columns.agent_id,
            columns.status,
            columns.status_reason,
            columns.is_switched_off,
            columns.is_routed,
            columns.config["engine_trunk_id"].astext.label("engine_trunk_id"),
            columns.config["first_message"].astext.label("first_message"),
            columns.config["max_duration"].as_integer().label("max_duration"),
            columns.config["ring_timeout"].as_integer().label("ring_timeout"),
            sa.func.coalesce(sa.func.nullif(columns.config["language"].astext, ""), agents.c.language).label(
                "language"
            ),
        )
        .select_from(phone_numbers)
        .outerjoin(agents, is_agent)
        .order_by(columns.id)
    )


async def all_trunks(conn: AsyncConnection) -> list[Row]:
    """Return every trunk."""
    return list(await conn.execute(_trunks()))


async def all_numbers(conn: AsyncConnection) -> AsyncIterator[list[Row]]:
    """Give every number, some at a time, by a cursor of the database."""
    result = await conn.stream(_numbers(), execution_options={"yield_per": _FETCHED_AT_ONCE})
    async for rows in result.partitions(NUMBERS_A_LINE):
        yield list(rows)


async def changes_since(conn: AsyncConnection, after: int, limit: int) -> list[Row]:
    """Return what changed after a version, at most `limit` rows."""
    statement = sa.select(route_changes).where(route_changes.c.version > after).limit(limit)
    return list(await conn.execute(statement))


async def numbers_by_id(conn: AsyncConnection, ids: Collection[str]) -> list[Row]:
    """Return those of some numbers that there are, of all accounts."""
    return list(await conn.execute(_numbers().where(phone_numbers.c.id.in_(ids))))


async def trunks_concerned(conn: AsyncConnection, ids: Collection[str], accounts: Collection[str]) -> list[Row]:
    """Return trunks by their ids, and all trunks of some accounts."""
    is_concerned = sa.or_(trunks.c.id.in_(ids), trunks.c.account_id.in_(accounts))
    return list(await conn.execute(_trunks().where(is_concerned)))


async def call_limits(conn: AsyncConnection, account_id: str | None = None) -> list[Row]:
    """Return what the plans say of calls, of every account (or one) whose plan says anything."""
    says = sa.or_(
        plans.c.max_concurrent_calls.is_not(None),
        plans.c.max_calls_per_second.is_not(None),
        sa.not_(plans.c.is_sip_enabled),
    )
    columns = (plans.c.is_sip_enabled, plans.c.max_concurrent_calls, plans.c.max_calls_per_second)
    statement = sa.select(accounts.c.id, *columns).join(plans, plans.c.id == accounts.c.plan_id).where(says)
    if account_id is not None:
        statement = statement.where(accounts.c.id == account_id)
    return list(await conn.execute(statement))


async def trunks_of(conn: AsyncConnection, caller: Caller) -> list[Row]:
    """Return every trunk of one account and mode."""
    mine = (trunks.c.account_id == caller.account_id, trunks.c.mode == caller.mode)
    return list(await conn.execute(_trunks().where(*mine)))


async def numbers_of(conn: AsyncConnection, caller: Caller, e164s: Collection[str]) -> list[Row]:
    """Return those of some numbers that one account holds in one mode."""
    mine = (phone_numbers.c.account_id == caller.account_id, phone_numbers.c.mode == caller.mode)
    return list(await conn.execute(_numbers().where(*mine, phone_numbers.c.e164.in_(e164s))))
