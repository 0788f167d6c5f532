"""The routes' version: one number that rises with every commit that changes a route.

Deferred triggers (migration 0001) raise it, so no writer can forget to; they fire at commit, when the
transaction takes no more locks, so that raising the one row can't deadlock, and the order of versions is the order
of commits: who reads version N sees everything up to N.
"""

import asyncio

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit.db import Database
from voxpria_server.routing.models import route_version

CHANNEL = "voxpria_routes"
_RECHECK_SECONDS = 5.0
_LEAP = 1_000_000_000
"""More changes than any backup is old."""


async def current(conn: AsyncConnection) -> int:
    """Return the version as this connection sees it."""
    return int((await conn.execute(sa.select(route_version.c.version))).scalar_one())


async def bump(conn: AsyncConnection) -> None:
    """Raise the version for what no table shows: settings that shape the snapshot have changed."""
    await conn.execute(sa.text("SELECT voxpria_bump_route_version()"))
    await conn.execute(sa.text("SELECT voxpria_mark_route('all', '', NULL, version) FROM route_version"))


async def leap(conn: AsyncConnection) -> int:
    """Raise the version beyond all that edges took before a restore undid it, and return it: they take all anew."""
    statement = sa.update(route_version).values(version=route_version.c.version + _LEAP)
    await conn.execute(statement)
    await bump(conn)
    return await current(conn)


async def wait_for(database: Database, after: int, timeout_seconds: float) -> int:
    """Wait until the version differs from `after`, and return it; `after` itself when time is up.

    Differs, not exceeds: an edge ahead of a restored database must come back to it.
    Raises DatabaseUnavailableError.
    """
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    with database.listener.ear(CHANNEL) as ear:
        while True:
            async with database.read() as connection:
                version = await current(connection)
            left = database.listener.seconds_left(deadline)
            if version != after or left <= 0:
                return version
            await ear.wait(min(left, _RECHECK_SECONDS))
