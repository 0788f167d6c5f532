"""/edge/v1: see `voxpria_routing.edge_api` for what each route means."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

import msgspec
import sqlalchemy as sa
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncConnection
from voxpria_routing.edge_api import Commands, CommandsWanted, OpenCalls, Status, Strangers, TrunkNews
from voxpria_routing.events import BatchResult

from voxpria_server.calls import commands, placing, recordings, service
from voxpria_server.calls.links import RecordingLinks
from voxpria_server.calls.recordings import RecordingStore
from voxpria_server.calls.traces import MAX_PACKED_BYTES, TraceStore
from voxpria_server.edge_api import service as strangers
from voxpria_server.edge_api import wire
from voxpria_server.errors import NotFoundError, UnauthorizedError, UnavailableError
from voxpria_server.kit.db import Database, DatabasePart
from voxpria_server.kit.ids import is_id
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.parts import part
from voxpria_server.kit.routes import NamedRoute
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.routing import edges, snapshot, version
from voxpria_server.settings import SettingsPart
from voxpria_server.trunks import service as trunks

_log = get_logger(__name__)
_SNAPSHOT_SECONDS = 300.0
_MAX_BATCH_BYTES = 8 * 1024 * 1024
_MAX_STATUS_BYTES = 64 * 1024
_MAX_TRUNK_NEWS_BYTES = 4 * 1024 * 1024
_MAX_STRANGERS_BYTES = 2 * 1024 * 1024
_MAX_OPEN_CALLS_BYTES = 4 * 1024 * 1024
_MAX_COMMANDS_BYTES = 256 * 1024


async def _authenticate(request: Request, token: Annotated[str, Depends(part("edge_token"))]) -> None:
    """Answer 401 unless the request shows the edges' token."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise UnauthorizedError("This is not the edges' token.", code="invalid_edge_token")


router = APIRouter(
    prefix="/edge/v1", include_in_schema=False, dependencies=[Depends(_authenticate)], route_class=NamedRoute
)
Links = Annotated[RecordingLinks, Depends(part("recording_links"))]
Store = Annotated[RecordingStore, Depends(part("recordings"))]
Traces = Annotated[TraceStore, Depends(part("traces"))]
Lines = Callable[[AsyncConnection], AsyncIterator[bytes]]
EdgeId = Annotated[str, Query(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


async def _lines(settings: SettingsPart, sealer: SealerPart) -> Lines:
    return partial(snapshot.lines, settings=settings, sealer=sealer)


SnapshotLines = Annotated[Lines, Depends(_lines)]


@router.post("/events")
async def take_events(request: Request, database: DatabasePart, links: Links) -> Response:
    """Take a batch of events: all that can be taken, or on a failure of the database (503) none."""
    events, rejected = wire.decode_batch(await wire.read_body(request, _MAX_BATCH_BYTES))
    try:
        rejected += await service.take_batch(links, database, events)
    except sa.exc.DBAPIError as error:
        _log.warning("events not taken", error=type(error.orig).__name__, count=len(events))
        raise UnavailableError("The events could not be written; send them again.") from error
    calls = {event.id: event.call_id for event in events}
    for refusal in rejected:
        call_id = calls.get(refusal.id)
        _log.warning("event rejected", event_id=refusal.id, call_id=call_id, error=refusal.error)
    return Response(msgspec.json.encode(BatchResult(rejected=tuple(rejected))), media_type="application/json")


@router.get("/snapshot")
async def get_snapshot(
    database: DatabasePart,
    lines: SnapshotLines,
    edge_id: EdgeId,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    wait_seconds: Annotated[float, Query(ge=0, le=25)] = 0,
) -> Response:
    """Answer with the routes as soon as they differ from version `after`, which the edge says it has in force."""
    async with database.transaction() as conn:
        await edges.acknowledge(conn, edge_id, after)
    if await version.wait_for(database, after, wait_seconds) == after:
        return Response(status_code=304)
    body = _in_one_moment(database, lines)
    return StreamingResponse(body, media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})


async def _in_one_moment(database: Database, lines: Lines) -> AsyncIterator[bytes]:
    """Give the lines as they are made; an edge that stops reading loses the connection and asks again."""
    async with asyncio.timeout(_SNAPSHOT_SECONDS), database.transaction() as conn:
        await conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        async for line in lines(conn):
            yield line


@router.get("/changes")
async def get_changes(
    database: DatabasePart,
    settings: SettingsPart,
    sealer: SealerPart,
    edge_id: EdgeId,
    after: Annotated[int, Query(ge=1, le=2**62)],
    wait_seconds: Annotated[float, Query(ge=0, le=25)] = 0,
) -> Response:
    """Answer as the snapshot does, but with what changed since version `after`; 410 where only a snapshot will do."""
    async with database.transaction() as conn:
        await edges.acknowledge(conn, edge_id, after)
    if await version.wait_for(database, after, wait_seconds) == after:
        return Response(status_code=304)
    async with database.transaction() as conn:
        await conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        delta = await snapshot.build_delta(conn, settings, sealer, after)
    if delta is None:
        return Response(status_code=410)
    return Response(msgspec.json.encode(delta), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.post("/status", status_code=204)
async def take_status(request: Request, database: DatabasePart) -> None:
    """Keep what an edge says of itself."""
    status = wire.decode(await wire.read_body(request, _MAX_STATUS_BYTES), Status)
    async with database.transaction() as conn:
        await edges.report(conn, status)


@router.post("/trunks", status_code=204)
async def take_trunk_news(request: Request, database: DatabasePart) -> None:
    """Keep what an edge tells of trunks."""
    news = wire.decode(await wire.read_body(request, _MAX_TRUNK_NEWS_BYTES), TrunkNews)
    async with database.transaction() as conn:
        await trunks.take_news(conn, news)


@router.post("/strangers", status_code=204)
async def take_strangers(request: Request, database: DatabasePart) -> None:
    """Keep what an edge has refused and is no account's."""
    news = wire.decode(await wire.read_body(request, _MAX_STRANGERS_BYTES), Strangers)
    async with database.transaction() as conn:
        await strangers.take_strangers(conn, news)


@router.post("/open-calls", status_code=204)
async def take_open_calls(request: Request, database: DatabasePart, links: Links) -> None:
    """End the calls that an edge no longer knows."""
    known = wire.decode(await wire.read_body(request, _MAX_OPEN_CALLS_BYTES), OpenCalls)
    async with database.transaction() as conn:
        await service.reconcile(links, conn, known)


@router.post("/commands")
async def get_commands(request: Request, database: DatabasePart) -> Response:
    """Answer with what the edge is to do and does not know yet, as soon as there is something."""
    wanted = wire.decode(await wire.read_body(request, _MAX_COMMANDS_BYTES), CommandsWanted)
    found = await commands.wait_for(database, wanted.edge_id, wanted.known, wanted.wait_seconds)
    return Response(msgspec.json.encode(Commands(commands=found)), media_type="application/json")


@router.post("/calls/{call_id}/take", status_code=204)
async def take_call(database: DatabasePart, edge_id: EdgeId, call_id: Annotated[str, Path(max_length=64)]) -> None:
    """Give a call that is to be placed to this edge; 409 if another has it, or it is over."""
    async with database.transaction() as conn:
        await placing.take(conn, edge_id, call_id)


@router.put("/calls/{call_id}/recording", status_code=204)
async def take_recording(
    request: Request, database: DatabasePart, store: Store, call_id: Annotated[str, Path(max_length=64)]
) -> None:
    """Keep a call's recording; again is no error. The call's own events may come later."""
    if not is_id(call_id, "call"):
        raise NotFoundError("There is no call with this id.", code="call_not_found")
    await store.put(call_id, request.stream())
    async with database.transaction() as conn:
        await recordings.announce(conn)


@router.put("/calls/{call_id}/trace", status_code=204)
async def take_trace(request: Request, traces: Traces, call_id: Annotated[str, Path(max_length=64)]) -> None:
    """Keep the SIP messages of a call; later ones replace earlier. The call's own events may come later."""
    if not is_id(call_id, "call"):
        raise NotFoundError("There is no call with this id.", code="call_not_found")
    await traces.put(call_id, await wire.read_body(request, MAX_PACKED_BYTES))
