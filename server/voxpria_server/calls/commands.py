"""What edges are asked to do with calls. A command is a row until it is done with; each edge asks for its own."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import Command, HangUp, Place

from voxpria_server.auth.service import Caller
from voxpria_server.calls import queries
from voxpria_server.errors import ConflictError, NotFoundError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, Row

CHANNEL = "voxpria_commands"
ENDED = "voxpria_calls_ended"
_AT_ONCE = 100
_GOES_ON = {"queued", "in-progress"}
_RECHECK_SECONDS = 5.0
HANG_UP_SECONDS = 10.0
"""How long an API request waits for a call's end: edges hear of it at once, and both sides are asked together."""
_ENDED_RECHECK_SECONDS = 0.25


async def wait_for(
    database: Database, edge_id: str, known: Collection[str], timeout_seconds: float
) -> tuple[Command, ...]:
    """Return commands of an edge that it does not know, as soon as there are any; none when time is up."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    with database.listener.ear(CHANNEL) as ear:
        while True:
            async with database.read() as conn:
                rows = await queries.commands_of_edge(conn, edge_id, known, _AT_ONCE)
            left = database.listener.seconds_left(deadline)
            if rows or left <= 0:
                return tuple(map(_command, rows))
            await ear.wait(min(left, _RECHECK_SECONDS))


async def hang_up(
    database: Database, caller: Caller, call_id: str, cancel: Callable[[AsyncConnection, Row], Awaitable[str | None]]
) -> Row:
    """Have a call ended at both sides, and return it, ended or (if that takes longer than 10 s) not yet.

    `cancel` ends a queued call that no edge has taken; where one has, it returns the edge's id.

    A call that was ended by the API before is returned as it is. Raises 404 call_not_found, 409 call_is_over.
    """
    with database.listener.ear(ENDED) as ear:
        async with database.transaction() as conn:
            call = await _find(conn, caller, call_id, lock=True)  # first the call, then its command, as events do
            edge_id = call.edge_id if call.status == "in-progress" else None
            if call.status == "queued":
                edge_id = await cancel(conn, call)
            if edge_id is not None:
                await queries.add_command(conn, _hang_up(call, edge_id))
                await announce(conn, CHANNEL)
            call = await _find(conn, caller, call_id)
        deadline = asyncio.get_running_loop().time() + HANG_UP_SECONDS
        while call.status in _GOES_ON and (left := database.listener.seconds_left(deadline)) > 0:
            await ear.wait(min(left, _ENDED_RECHECK_SECONDS))
            async with database.read() as conn:
                call = await _find(conn, caller, call_id)
    if call.status not in _GOES_ON and call.ended_by != "api":
        raise ConflictError(
            f"The call is over: it was ended by the {call.ended_by}.",
            code="call_is_over",
            details={"status": call.status, "ended_by": call.ended_by},
        )
    return call


async def done(conn: AsyncConnection, call_id: str) -> None:
    """Forget what edges were to do with a call that is over; wake who waits for its end."""
    await queries.drop_commands(conn, call_id)
    await announce(conn, ENDED)


async def announce(conn: AsyncConnection, channel: str) -> None:
    """Wake those who wait, at commit."""
    await conn.execute(sa.text("SELECT pg_notify(:channel, '')"), {"channel": channel})


async def _find(conn: AsyncConnection, caller: Caller, call_id: str, *, lock: bool = False) -> Row:
    call = await queries.find(conn, caller, call_id, lock=lock)
    if call is None:
        raise NotFoundError("There is no call with this id.", code="call_not_found")
    return call


def _command(row: Row) -> Command:
    if row.kind == "place":
        return msgspec.json.decode(row.body, type=Place)
    return HangUp(id=row.id, call_id=row.call_id)


def _hang_up(call: Row, edge_id: str) -> dict[str, object]:
    return {
        "id": f"hang_up_{call.id}",
        "kind": "hang_up",
        "call_id": call.id,
        "edge_id": edge_id,
        "created_at": utc_now(),
    }
