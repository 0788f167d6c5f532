"""/v1/calls and /v1/recordings."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse

from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.calls import commands, pcap, placing, queries, recordings, schemas, service
from voxpria_server.calls.links import RecordingLinks
from voxpria_server.calls.recordings import RecordingStore
from voxpria_server.calls.state import Status
from voxpria_server.calls.traces import TraceStore
from voxpria_server.errors import NotFoundError, RangeNotSatisfiableError, raises
from voxpria_server.kit.answers import encode
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.dates import EndDate, StartDate
from voxpria_server.kit.db import Connection, DatabasePart
from voxpria_server.kit.pagination import Listing, Page
from voxpria_server.kit.parts import part
from voxpria_server.kit.ranges import UnsatisfiableError, parse_range

router = APIRouter(tags=["Calls"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("calls:read"))]
Writer = Annotated[Caller, Depends(require("calls:write"))]
Links = Annotated[RecordingLinks, Depends(part("recording_links"))]
Store = Annotated[RecordingStore, Depends(part("recordings"))]
Traces = Annotated[TraceStore, Depends(part("traces"))]

_ARRIVAL_SECONDS = 15.0


async def _filters(
    phone_number: Annotated[
        str | None, Query(min_length=1, max_length=64, description="A number of yours, as `%2B1…`.")
    ] = None,
    direction: Annotated[
        Literal["inbound", "outbound"] | None, Query(description="Only calls to your numbers, or only calls from them.")
    ] = None,
    status: Annotated[Status | None, Query(description="Only calls in this state.")] = None,
    start_date: StartDate | None = None,
    end_date: EndDate | None = None,
) -> queries.Filters:
    """Return the filters asked for. A `+` that was not percent-encoded arrives as a space; no number has one."""
    number = phone_number and phone_number.replace(" ", "+")
    return queries.Filters(phone_number=number, direction=direction, status=status, since=start_date, before=end_date)


@router.get("/calls", response_model=Listing[schemas.CallListed])
async def list_calls(
    caller: Reader,
    database: DatabasePart,
    page: Page,
    links: Links,
    filters: Annotated[queries.Filters, Depends(_filters)],
) -> Response:
    """List calls, newest first."""
    rows, total = await queries.list_page(database, caller, page, filters)
    now = utc_now()
    return page.encode([schemas.listed(links, row, now) for row in rows], total)


@router.post(
    "/calls",
    status_code=201,
    responses=raises("invalid_phone_number", "phone_not_found", "agent_not_found", "number_not_in_service"),
)
async def place_call(caller: Writer, conn: Connection, links: Links, body: schemas.PlaceCall) -> schemas.CallPlaced:
    """Call somebody from one of your numbers, and connect them with the number's agent once they answer.

    The call waits, `queued`, for an edge and for room within the limits; what is not placed within a minute fails, and
    its `explanation` says why. It goes out through the number's carrier and is never placed twice.
    """
    queued = await placing.place(links, conn, caller, body)
    return schemas.placed(queued, placing.expires_at(queued))


@router.get("/calls/{call_id}", response_model=schemas.CallFull, responses=raises("call_not_found"))
async def get_call(caller: Reader, database: DatabasePart, links: Links, call_id: str) -> Response:
    """Return a call with what was measured and what happened."""
    return encode(schemas.full(links, await service.get(database, caller, call_id)))


@router.get("/calls/{call_id}/trace", responses=raises("call_not_found"))
async def get_trace(caller: Reader, database: DatabasePart, traces: Traces, call_id: str) -> schemas.CallTrace:
    """Return every SIP message of a call, on all its legs, with the decision that was made and where the time went.

    Passwords, answers to challenges and media keys are removed. A call still up has what there was when it was
    answered; messages are kept for as long as the server's setting says.
    """
    row = await service.get(database, caller, call_id)
    return schemas.trace(row, await traces.get(call_id))


@router.get(
    "/calls/{call_id}/trace.pcap", response_class=Response, responses=raises("call_not_found", "trace_not_found")
)
async def get_capture(caller: Reader, database: DatabasePart, traces: Traces, call_id: str) -> Response:
    """Return the same messages as a capture file (libpcap), for Wireshark and its like."""
    await service.get(database, caller, call_id)
    trace = await traces.get(call_id)
    if trace is None:
        raise NotFoundError("No SIP messages of this call are kept.", code="trace_not_found")
    headers = {"Content-Disposition": f'attachment; filename="{call_id}.pcap"', "Cache-Control": "private, no-store"}
    return Response(pcap.capture(trace.messages), media_type="application/vnd.tcpdump.pcap", headers=headers)


@router.post(
    "/calls/{call_id}/hangup",
    responses={202: {"model": schemas.HungUp}, **raises("call_not_found", "call_is_over")},
)
async def hang_up(
    caller: Writer, database: DatabasePart, links: Links, call_id: str, response: Response
) -> schemas.HungUp:
    """End a call at both sides, talking or ringing.

    Waits up to 10 s for its end; 202 if that takes longer, and it goes on. Again is no error: a call that the API ended
    is answered in the same way. A call that ended otherwise is 409.
    """
    row = await commands.hang_up(database, caller, call_id, partial(placing.cancel, links))
    response.status_code = 200 if row.ended_at else 202
    return schemas.hung_up(row)


async def _linked(
    links: Links,
    call_id: str,
    expires: Annotated[int, Query(ge=0, le=2**53, description="When the link ends, in unix seconds.")],
    signature: Annotated[str, Query(max_length=128, description="What makes the link ours.")],
) -> str:
    links.check(call_id, expires, signature, utc_now())
    return call_id


@router.get(
    "/recordings/{call_id}.mp3",
    response_class=StreamingResponse,
    responses={
        200: {"description": "The recording: stereo, the caller left, the agent right", "content": {"audio/mpeg": {}}},
        206: {"description": "The range that was asked for", "content": {"audio/mpeg": {}}},
        **raises("invalid_signature", "link_expired", "recording_not_found", "range_not_satisfiable"),
    },
)
async def get_recording(
    database: DatabasePart,
    store: Store,
    call_id: Annotated[str, Depends(_linked)],
    range_: Annotated[str | None, Header(alias="range", max_length=200, description="Bytes wanted (RFC 9110).")] = None,
) -> Response:
    """Return a call's recording, by the signed link of the call. One that is on its way is waited for."""
    size = await recordings.wait_for(database, store, call_id, _ARRIVAL_SECONDS)
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
    try:
        asked = parse_range(range_, size)
    except UnsatisfiableError:
        raise RangeNotSatisfiableError(size) from None
    start, end = asked or (0, size)
    headers["Content-Length"] = str(end - start)
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(
        store.read(call_id, start, end),
        status_code=200 if asked is None else 206,
        headers=headers,
        media_type="audio/mpeg",
    )
