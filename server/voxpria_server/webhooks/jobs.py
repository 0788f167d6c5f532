"""Durable work of this slice: recoveries, and the end of old events. Deliveries are brought by `courier`."""

from datetime import datetime, timedelta

from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import Blueprint, JobContext, Retry
from voxpria_server.kit.logs import get_logger
from voxpria_server.webhooks import outbox, queries, service

blueprint = Blueprint()
_log = get_logger(__name__)

_PURGE_AT_ONCE = 1000
_RECOVER_AT_ONCE = 500
_OWN_TROUBLE = Retry((1, 5, 30, 60), forever=True)
"""For failures on our side, as a lost database."""


@blueprint.task(name=service.RECOVER, queue=service.QUEUE, pass_context=True, retry=_OWN_TROUBLE)
async def recover(context: JobContext, webhook_id: str, since: str, after: str) -> None:
    """Send a webhook the events since a time that never reached it, oldest first; each job does a part of them."""
    database: Database = context.additional_context["database"]
    async with database.transaction() as conn:
        webhook = await queries.find_of_job(conn, webhook_id)
        if webhook is None or webhook.status != "active":
            _log.info("recovery dropped", webhook_id=webhook_id)
            return
        missed = await queries.missed_events_of_job(
            conn, webhook, datetime.fromisoformat(since), after=after, limit=_RECOVER_AT_ONCE
        )
        if not missed:
            return
        await outbox.deliver_again(conn, webhook_id, missed)
        await service.defer_recovery(conn, webhook_id, since, after=missed[-1])


@blueprint.periodic(cron="17 * * * *")
@blueprint.task(name="webhooks:purge", queue="maintenance", pass_context=True)
async def purge(context: JobContext, timestamp: int) -> None:
    """Remove events that are no longer listed."""
    database: Database = context.additional_context["database"]
    gone, before = _PURGE_AT_ONCE, utc_now() - timedelta(days=service.EVENTS_KEPT_DAYS)
    while gone == _PURGE_AT_ONCE:
        async with database.transaction() as conn:
            gone = await queries.delete_events(conn, before, _PURGE_AT_ONCE)
    async with database.transaction() as conn:
        await queries.delete_tallies(conn, before.date())
    _log.debug("old events purged", at=timestamp)
