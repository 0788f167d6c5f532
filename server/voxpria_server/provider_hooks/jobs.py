"""Durable work of this slice: answering a call that rings at a provider."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.jobs import Blueprint, JobContext, Retry
from voxpria_server.kit.logs import get_logger, name_in_log
from voxpria_server.kit.sealing import SealBrokenError
from voxpria_server.provider_hooks import queries, service
from voxpria_server.providers.base import RefusedError, UnreachableError
from voxpria_server.providers.openai import OpenAI, Project
from voxpria_server.routing import edges
from voxpria_server.trunks.service import open_credentials

blueprint = Blueprint()
_log = get_logger(__name__)

_RETRY = Retry((0.2, 0.3, 0.5, 1, 2, 3, 4))
_REPORTED = timedelta(seconds=1)
"""Our edge tells of a call before it relays it, and OpenAI of one that rings: by then both are here, as a rule."""
_UNSENT = 200
"""So many events that an edge has yet to send are a backlog, in which a call may be."""
_KEPT_DAYS = 30
_FORBIDDEN, _UNAVAILABLE = 403, 480


class UnknownCallError(Exception):
    """No call of ours is going on that this one could be: our edge may not have reported it yet."""


@blueprint.task(name=service.ANSWER, queue="answers", pass_context=True, retry=_RETRY)
async def answer(context: JobContext, trunk_id: str, provider_call_id: str) -> None:
    """Accept a call with the agent of its number, or reject it; never one that rang a minute ago."""
    parts = context.additional_context
    database: Database = parts["database"]
    async with database.read() as conn:
        ringing = await queries.find_pending(conn, trunk_id, provider_call_id)
    if ringing is None:
        _log.info("call is answered already, or its trunk is gone", provider_call_id=provider_call_id)
        return
    if utc_now() - ringing.received_at > timedelta(seconds=service.RINGS_SECONDS):
        await _close(database, ringing, "failed", "it was found too late")
        return
    try:
        credentials = open_credentials(parts["sealer"], trunk_id, ringing.sealed_credentials)
        project = Project.of(ringing.mode, ringing.server, credentials)
        await _answer(parts, ringing, project, may_wait=_RETRY.is_left(context.job))
    except (RefusedError, SealBrokenError) as refusal:
        await _close(database, ringing, "failed", str(refusal))
    except UnreachableError as error:
        if _RETRY.is_left(context.job):
            raise
        await _close(database, ringing, "failed", str(error))


@blueprint.periodic(cron="47 3 * * *")
@blueprint.task(name="provider-hooks:purge", queue="maintenance", pass_context=True)
async def purge(context: JobContext, timestamp: int) -> None:
    """Forget the calls of more than 30 days ago."""
    database: Database = context.additional_context["database"]
    async with database.transaction() as conn:
        count = await queries.purge(conn, utc_now() - timedelta(days=_KEPT_DAYS))
    _log.info("providers' calls purged", at=timestamp, count=count)


async def _answer(parts: dict[str, Any], ringing: Row, project: Project, *, may_wait: bool) -> None:
    database: Database = parts["database"]
    openai: OpenAI = parts["providers"]["openai"]
    call_id = service.our_call_id(ringing.sip_headers)
    if call_id:
        name_in_log(call_id=call_id)
    async with database.read() as conn:
        call = await queries.find_open_call(conn, ringing.account_id, ringing.mode, call_id) if call_id else None
    if call is None or call.engine != "openai":
        if call_id and may_wait and await may_come(database, utc_now() - ringing.received_at):
            raise UnknownCallError
        await openai.reject(project, ringing.provider_call_id, _FORBIDDEN)
        await _close(database, ringing, "rejected", "it did not come through our edge")
        return
    try:
        await openai.accept(project, ringing.provider_call_id, service.session_of(call))
    except RefusedError:
        with suppress(RefusedError, UnreachableError):  # nobody will answer: its caller, or a stand-in, need not wait
            await openai.reject(project, ringing.provider_call_id, _UNAVAILABLE)
        raise
    speaks_first = bool(call.config.get("first_message"))
    await _close(database, ringing, "accepted", None, call_id=call.id, speaks_first=speaks_first, heard_until=utc_now())


async def may_come(database: Database, waited: timedelta) -> bool:
    """Tell whether the edge's report of a call may still be on its way, as long as it has been waited for."""
    if waited < _REPORTED:
        return True
    async with database.read() as conn:
        fresh = await edges.fresh(conn)
    return not fresh or any(edge.unsent_events > _UNSENT for edge in fresh)


async def _close(database: Database, ringing: Row, status: str, reason: str | None, **accepted: object) -> None:
    """Keep what became of a call; `accepted`: the columns of one that an agent has taken."""
    _log.info("provider's call answered", status=status, reason=reason)
    values = {"status": status, "reason": reason, **accepted}
    async with database.transaction() as conn:
        await queries.close(conn, ringing.trunk_id, ringing.provider_call_id, values, utc_now())
        if accepted:
            await queries.to_be_heard(conn)
