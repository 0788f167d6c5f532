"""Durable work of this slice: where a caller is from, the sweep that leaves no call open, the end of what is kept."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from voxpria_server.calls import placing, queries, service, transcripts
from voxpria_server.calls.location import location_of
from voxpria_server.calls.retention import RECORDING, TRACE, older_than
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import Blueprint, JobContext, Retry
from voxpria_server.kit.logs import get_logger
from voxpria_server.providers.base import RefusedError
from voxpria_server.settings import Settings

blueprint = Blueprint()
_log = get_logger(__name__)

GRACE_SECONDS = 120
"""How long beyond its max_duration a call may seem open."""

UNSEEN_SECONDS = 60
"""How long an edge must have been silent before its calls are ended without it."""


@blueprint.task(name=service.LOCATE, queue="calls", pass_context=True, retry=Retry((5, 60, 600)))
async def locate(context: JobContext, call_ids: list[str]) -> None:
    """Find out where calls come from that were taken before the number plan was loaded."""
    database: Database = context.additional_context["database"]
    async with database.read() as conn:
        numbers = await queries.callers_of_job(conn, call_ids)
    found = {call_id: await location_of(number) for call_id, number in numbers.items()}
    async with database.transaction() as conn:
        for call_id, location in sorted(found.items()):
            if location is not None:
                await queries.set_location_of_job(conn, call_id, location)


@blueprint.task(name=service.TRANSCRIBE, queue="calls", pass_context=True, retry=Retry((1, 2, 5, 15, 60, 300, 1800)))
async def transcribe(context: JobContext, call_id: str) -> None:
    """Fetch what was said in a call from the provider whose agent took it, once that has it written down."""
    parts = context.additional_context
    database: Database = parts["database"]
    async with database.transaction() as conn:
        found = await transcripts.asked_for(conn, parts["sealer"], call_id)
    if found is None:
        return
    try:
        conversation = await parts["conversations"].find(*found)
    except RefusedError as refusal:
        _log.warning("transcript refused", call_id=call_id, reason=str(refusal))
        return
    if conversation is None:
        raise transcripts.NotYetError
    segments = [(turn.speaker, turn.text, turn.at) for turn in conversation.turns]
    async with database.transaction() as conn:
        is_kept = await service.add_transcript(
            conn, call_id, segments, source="elevenlabs", external_id=conversation.id
        )
    _log.info("transcript kept" if is_kept else "nothing was said", call_id=call_id, count=len(segments))


@blueprint.task(name=placing.EXPIRE, queue="calls", pass_context=True, retry=Retry((30, 30, 60)))
async def expire(context: JobContext, call_id: str) -> None:
    """Fail a call that the API asked for and no edge has placed in time."""
    parts = context.additional_context
    database: Database = parts["database"]
    async with database.transaction() as conn:
        await placing.expire(parts["recording_links"], conn, call_id)


@blueprint.periodic(cron="* * * * *")
@blueprint.task(name="calls:sweep", queue="maintenance", pass_context=True)
async def sweep(context: JobContext, timestamp: int) -> None:
    """End calls that must be over, on edges that have fallen silent."""
    parts = context.additional_context
    database: Database = parts["database"]
    async with database.transaction() as conn:
        count = await service.sweep(
            parts["recording_links"], conn, grace_seconds=GRACE_SECONDS, unseen_seconds=UNSEEN_SECONDS
        )
        await queries.drop_commands_of_ended_of_job(conn)
    _log.debug("calls swept", at=timestamp, count=count)


@blueprint.periodic(cron="17 * * * *")
@blueprint.task(name="calls:retain", queue="maintenance", pass_context=True)
async def retain(context: JobContext, timestamp: int) -> None:
    """Delete recordings and traces whose time is over."""
    parts = context.additional_context
    settings: Settings = parts["settings"]
    now = utc_now()
    recordings = await _delete_recordings(parts, now - timedelta(days=settings.recording_days))
    traces = 0
    async for call_id in older_than(parts["store"], now - timedelta(days=settings.trace_days), TRACE):
        await parts["traces"].delete(call_id)
        traces += 1
    _log.info("deleted what is no longer kept", at=timestamp, recordings=recordings, traces=traces)


async def _delete_recordings(parts: Mapping[str, Any], before: datetime) -> int:
    """Delete recordings; the record says so first, so that a crash between the two is mended by the next run."""
    database: Database = parts["database"]
    count = 0
    async for call_id in older_than(parts["store"], before, RECORDING):
        async with database.transaction() as conn:
            await service.mark_recording_deleted(parts["recording_links"], conn, call_id)
        await parts["recordings"].delete(call_id)
        count += 1
    return count
