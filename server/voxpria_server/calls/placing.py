"""Calls that the API places: queued as a row and a command in one commit, taken by one edge, or failed in the end."""

from datetime import datetime, timedelta

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.decision import Explanation
from voxpria_routing.edge_api import Place
from voxpria_routing.events import EndCause, Ended, Queued, Side

from voxpria_server.auth.service import Caller
from voxpria_server.calls import commands, queries, service
from voxpria_server.calls.links import RecordingLinks
from voxpria_server.calls.schemas import PlaceCall
from voxpria_server.errors import ConflictError, InvalidParameterError
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.jobs import defer
from voxpria_server.numbers import service as numbers

EXPIRE = "calls:expire"
QUEUE_SECONDS = 60
"""How long a call may wait for an edge, or for room."""
_SILENT_SECONDS = 120
"""How long after that an edge that took it may leave us without word of it."""


class NotYetError(Exception):
    """An edge has the call and has not told of it yet."""


async def place(links: RecordingLinks, conn: AsyncConnection, caller: Caller, body: PlaceCall) -> Queued:
    """Queue a call. Raises 400, 404 phone_not_found or agent_not_found, 409 number_not_in_service."""
    number = await numbers.find_to_call_from(conn, caller, body.from_)
    to = numbers.check_e164(body.to, caller.mode, field="to")
    agent_trunk = await _agent_trunk(conn, number, body.from_)
    agent_id = await _agent(conn, caller, number, body.agent_id)
    now = utc_now()
    queued = Queued(
        id=new_id("evt"),
        call_id=new_id("call"),
        at=now,
        account_id=caller.account_id,
        mode=caller.mode,
        from_=number.e164,
        to=to,
        number_id=number.id,
        trunk_id=agent_trunk.id,
        agent_id=agent_id,
        max_duration_seconds=number.config["max_duration"],
        variables=body.variables,
        metadata=body.metadata,
        explanation=Explanation(
            summary=f"{to} is to be called from {number.e164}, as the API was asked to.",
            tried=("queued for an edge",),
        ),
    )
    await service.take(links, conn, [queued])
    await queries.add_command(conn, _command(queued))
    await commands.announce(conn, commands.CHANNEL)
    args = {"call_id": queued.call_id}
    await defer(conn, EXPIRE, args, queue="calls", delay_seconds=QUEUE_SECONDS + 1)
    return queued


def expires_at(queued: Queued) -> datetime:
    """Return until when an edge may take a call."""
    return queued.at + timedelta(seconds=QUEUE_SECONDS)


async def take(conn: AsyncConnection, edge_id: str, call_id: str) -> None:
    """Give a queued call to an edge; again is no error. Raises 409 call_is_over if it is another's, or over."""
    if not await queries.take_command_of_edge(conn, f"place_{call_id}", edge_id, utc_now()):
        raise ConflictError("This call is another edge's, or over.", code="call_is_over")


async def cancel(links: RecordingLinks, conn: AsyncConnection, call: Row) -> str | None:
    """End a queued call that no edge has taken; where one has, return its id."""
    edge_id = await queries.withdraw_command(conn, f"place_{call.id}")
    if edge_id is not None:
        return edge_id
    await _end(links, conn, call.id, "canceled", "api", None)
    return None


async def expire(links: RecordingLinks, conn: AsyncConnection, call_id: str) -> None:
    """Fail a call that no edge has taken in time; raise NotYetError while one that has may still tell of it."""
    call = await queries.find_of_job(conn, call_id, lock=True)  # first the call, then its command, as events do
    if call is None or call.status != "queued":
        return
    edge_id = await queries.withdraw_command(conn, f"place_{call_id}")
    if edge_id is None:
        await _end(links, conn, call_id, "not_placed", "edge", f"None took it within {QUEUE_SECONDS} s.")
        return
    if utc_now() < call.started_at + timedelta(seconds=QUEUE_SECONDS + _SILENT_SECONDS):
        raise NotYetError
    await queries.drop_commands(conn, call_id)
    await _end(links, conn, call_id, "lost", "edge", f"Edge {edge_id} took it, and has not been heard of since.")


async def _end(
    links: RecordingLinks,
    conn: AsyncConnection,
    call_id: str,
    cause: EndCause,
    by: Side,
    detail: str | None,
) -> None:
    event = Ended(
        id=f"evt_unplaced_{call_id}",
        call_id=call_id,
        at=utc_now(),
        cause=cause,
        by=by,
        sip_code=0,
        sip_reason="",
        detail=detail,
    )
    await service.take(links, conn, [event])


async def _agent_trunk(conn: AsyncConnection, number: Row, given: str) -> Row:
    """Return the trunk whose server the agent is at."""
    target = await numbers.agent_trunk_of(conn, number)
    if isinstance(target, str):
        raise ConflictError(f"{number.e164} is not in service: {target}.", code="number_not_in_service")
    if target.id == number.trunk_id:
        raise InvalidParameterError(
            "This number can't place calls: it is on the trunk of its agent, and has no carrier. Import it on a generic"
            " trunk of your carrier, with its engine named.",
            field="from",
            provided=given,
        )
    if number.status != "active":
        raise ConflictError(
            f"{number.e164} is {number.status}; provision it first.",
            code="number_not_in_service",
            details={"phone_number": number.e164, "status": number.status},
        )
    return target


async def _agent(conn: AsyncConnection, caller: Caller, number: Row, wanted: str | None) -> str | None:
    if wanted is None or wanted == number.agent_id:
        return str(number.agent_id) if number.agent_id else None
    if number.engine == "elevenlabs":
        raise InvalidParameterError(
            "ElevenLabs answers a number with the agent that is assigned to it: give the number this agent, or leave"
            " agent_id out.",
            field="agent_id",
            provided=wanted,
        )
    await numbers.check_agent(conn, caller, number.engine, wanted)
    return wanted


def _command(queued: Queued) -> dict[str, object]:
    order = Place(
        id=f"place_{queued.call_id}",
        call_id=queued.call_id,
        account_id=queued.account_id,
        mode=queued.mode,
        number_id=queued.number_id,
        from_=queued.from_,
        to=queued.to,
        agent_id=queued.agent_id,
        variables=queued.variables,
        expires_at=expires_at(queued),
    )
    return {
        "id": order.id,
        "kind": "place",
        "call_id": order.call_id,
        "edge_id": None,
        "created_at": queued.at,
        "expires_at": order.expires_at,
        "body": msgspec.json.encode(order),
    }
