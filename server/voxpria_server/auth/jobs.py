"""Durable work of this slice: the end of idempotency keys."""

from voxpria_server.auth import queries
from voxpria_server.auth.idempotency import KEPT_HOURS
from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import Blueprint, JobContext
from voxpria_server.kit.logs import get_logger

blueprint = Blueprint()
_log = get_logger(__name__)
_PURGE_AT_ONCE = 1000


@blueprint.periodic(cron="29 * * * *")
@blueprint.task(name="auth:purge", queue="maintenance", pass_context=True)
async def purge(context: JobContext, timestamp: int) -> None:
    """Remove the answers that are kept no longer."""
    database: Database = context.additional_context["database"]
    gone = _PURGE_AT_ONCE
    while gone == _PURGE_AT_ONCE:
        async with database.transaction() as conn:
            gone = await queries.delete_answers(conn, KEPT_HOURS, _PURGE_AT_ONCE)
    _log.debug("old idempotency keys purged", at=timestamp)
