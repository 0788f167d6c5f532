"""Durable work of this slice: looking after the trunks' health."""

import base64

from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import Blueprint, JobContext, Retry, defer
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.sealing import SealBrokenError
from voxpria_server.providers.base import Mode, RefusedError, UnreachableError
from voxpria_server.providers.hosts import OPENAI_SIP
from voxpria_server.providers.openai import OpenAI, Project
from voxpria_server.trunks import health, queries, service
from voxpria_server.trunks.service import open_credentials

blueprint = Blueprint()
_log = get_logger(__name__)

CHECK = "trunks:check"
_INSISTENCE = Retry((5, 60, 600, 3600, 4 * 3600, 18 * 3600), only=(UnreachableError,))
_MOST_AT_ONCE = 1000
"""Checks begun in a minute; the rest are due first in the next one."""


@blueprint.periodic(cron="* * * * *")
@blueprint.task(name="trunks:check-due", queue="maintenance", pass_context=True)
async def check_due(context: JobContext, timestamp: int) -> None:
    """Have every trunk checked whose time has come."""
    database: Database = context.additional_context["database"]
    async with database.transaction() as conn:
        due = await queries.due_of_job(conn, _MOST_AT_ONCE)
        for trunk_id in due:
            await defer(conn, CHECK, {"trunk_id": trunk_id}, queue="health", queueing_lock=f"{CHECK}:{trunk_id}")
    _log.debug("trunks to be checked", at=timestamp, count=len(due))


@blueprint.task(name=service.DISARM, queue=service.QUEUE, pass_context=True, retry=_INSISTENCE)
async def disarm(
    context: JobContext, trunk_id: str, mode: Mode, sealed_credentials: str, server: str = OPENAI_SIP
) -> None:
    """Remove the webhook of a trunk that is gone from OpenAI; try for a day, and leave it there then.

    Jobs of older releases name no server.
    """
    parts = context.additional_context
    openai: OpenAI = parts["providers"]["openai"]
    database: Database = parts["database"]
    url = service.webhook_url(parts["settings"], trunk_id)
    async with database.read() as conn:
        trunk = await queries.find_of_job(conn, trunk_id)
    try:
        credentials = open_credentials(parts["sealer"], trunk_id, base64.b64decode(sealed_credentials))
        project = Project.of(mode, server, credentials)
        if trunk is not None and service.project_of(parts["sealer"], trunk) == project:
            _log.info("trunk is back in its project, the webhook stays", trunk_id=trunk_id)
            return
        count = await openai.disarm(project, url)
    except (RefusedError, SealBrokenError) as refusal:
        _log.warning("a webhook stays at OpenAI", trunk_id=trunk_id, reason=str(refusal))
    except UnreachableError as error:
        if _INSISTENCE.is_left(context.job):
            raise
        _log.warning("a webhook stays at OpenAI", trunk_id=trunk_id, reason=str(error))
    else:
        _log.info("webhooks removed at OpenAI", trunk_id=trunk_id, count=count)


@blueprint.task(name=CHECK, queue="health", pass_context=True)
async def check(context: JobContext, trunk_id: str) -> None:
    """Ask a trunk's server how it is, and keep that; not retried, as the trunk stays due."""
    parts = context.additional_context
    database: Database = parts["database"]
    async with database.read() as conn:
        trunk = await queries.find_of_job(conn, trunk_id)
    if trunk is None:
        _log.info("trunk is gone, not checked", trunk_id=trunk_id)
        return
    try:
        credentials = open_credentials(parts["sealer"], trunk.id, trunk.sealed_credentials)
    except SealBrokenError:
        credentials = {}
    found = await health.check(parts["settings"], trunk.mode, trunk.provider, trunk.config, credentials)
    values = health.record(found, failures_before=trunk.health_failures)
    async with database.transaction() as conn:
        await queries.set_health(conn, trunk_id, trunk.updated_at, values)
