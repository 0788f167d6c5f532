"""Every SQL statement of this slice. What it keeps belongs to no account, and is the operator's."""

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.edge_api.models import refused_calls
from voxpria_server.kit.db import Row

_refused = refused_calls.c


async def refused_keys(conn: AsyncConnection, day: date) -> set[tuple[str, str]]:
    """Return the sources and causes of which something is kept of a day; hold off others who add to them."""
    await conn.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('refused calls'))"))
    rows = await conn.execute(sa.select(_refused.source, _refused.cause).where(_refused.day == day))
    return {(row.source, row.cause) for row in rows}


async def add_refused(conn: AsyncConnection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add to the sums of a day; of the last call from a source, the newer stands."""
    for row in rows:
        statement = insert(refused_calls).values(**row)
        new = statement.excluded
        latest = {name: new[name] for name in ("last_at", "edge_id", "transport", "called", "why", "nearest", "mend")}
        changed = latest | {"count": _refused["count"] + new["count"]}
        key = ["day", "source", "cause"]
        await conn.execute(statement.on_conflict_do_update(index_elements=key, set_=changed))


async def delete_refused(conn: AsyncConnection, before: date) -> None:
    """Forget the days before one."""
    await conn.execute(sa.delete(refused_calls).where(_refused.day < before))


async def list_refused(conn: AsyncConnection, since: date, limit: int) -> list[Row]:
    """Return what was refused since a day, the latest first."""
    statement = sa.select(refused_calls).where(_refused.day >= since)
    return list(await conn.execute(statement.order_by(_refused.last_at.desc()).limit(limit)))
