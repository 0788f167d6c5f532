"""Every SQL statement of the status page. It is told to anybody, so it counts over all tenants and names none."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit.db import Row
from voxpria_server.reference.models import status_days, status_parts
from voxpria_server.trunks.models import trunks

_REACHED = ("reachable", "auth_failed")


async def trunks_seen(conn: AsyncConnection, providers: Sequence[str], *, is_sandbox: bool) -> dict[str, Row]:
    """Return of each provider how many trunks it has, were looked at in the last hour, and reached its servers.

    In live mode only, unless this is a sandbox.
    """
    recent = trunks.c.health_checked_at > sa.func.now() - sa.text("interval '1 hour'")
    reached = sa.func.count().filter(recent, trunks.c.health_status.in_(_REACHED)).label("reached")
    seen = sa.func.count().filter(recent, trunks.c.health_status != "unverified").label("seen")
    statement = sa.select(trunks.c.provider, reached, seen, sa.func.count().label("trunks"))
    modes = ("live", "test") if is_sandbox else ("live",)
    statement = statement.where(trunks.c.provider.in_(providers), trunks.c.mode.in_(modes)).group_by(trunks.c.provider)
    return {row.provider: row for row in await conn.execute(statement)}


async def lock_history(conn: AsyncConnection) -> None:
    """Have no other process add to the history until the transaction ends."""
    await conn.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('status history'))"))


async def last_checks(conn: AsyncConnection) -> dict[str, Row]:
    """Return what was last found of each part."""
    return {row.part: row for row in await conn.execute(sa.select(status_parts))}


async def days(conn: AsyncConnection, since: date) -> list[Row]:
    """Return the parts' days since one, oldest first."""
    statement = sa.select(status_days).where(status_days.c.day >= since).order_by(status_days.c.day)
    return list(await conn.execute(statement))


async def put_checks(conn: AsyncConnection, states: Mapping[str, str], at: datetime) -> None:
    """Keep what was found of each part."""
    rows = [{"part": part, "state": state, "checked_at": at} for part, state in states.items()]
    if not rows:
        return
    statement = insert(status_parts).values(rows)
    changed = {"state": statement.excluded.state, "checked_at": statement.excluded.checked_at}
    await conn.execute(statement.on_conflict_do_update(index_elements=["part"], set_=changed))


async def add_minutes(conn: AsyncConnection, minutes: Iterable[tuple[str, date, str, int]]) -> None:
    """Add minutes to days: part, day, state, how many."""
    for part, day, state, count in minutes:
        statement = insert(status_days).values(part=part, day=day, **{state: count})
        more = {state: status_days.c[state] + count}
        await conn.execute(statement.on_conflict_do_update(index_elements=["part", "day"], set_=more))


async def delete_days(conn: AsyncConnection, before: date) -> None:
    """Forget the days before one."""
    await conn.execute(sa.delete(status_days).where(status_days.c.day < before))
