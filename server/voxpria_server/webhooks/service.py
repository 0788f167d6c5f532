"""The rules for webhooks."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.service import Caller
from voxpria_server.errors import ConflictError, InvalidParameterError, NotFoundError
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, Row
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.jobs import defer
from voxpria_server.kit.pagination import PageQuery
from voxpria_server.kit.sealing import Sealer
from voxpria_server.settings import Settings
from voxpria_server.webhooks import guard, outbox, queries, signing
from voxpria_server.webhooks.schemas import EventType, SecretRoll, TestEvent, WebhookCreate, WebhookUpdate

RECOVER = "webhooks:recover"
QUEUE = "webhooks"
EVENTS_KEPT_DAYS = 30
SECRET_OVERLAP_HOURS = 24
MOST_FORMER_SECRETS = 10
"""Each of them signs every delivery, in its headers."""
MOST_WEBHOOKS = 50
"""For an account and mode: every event is written out to each of them, within the caller's transaction."""

_SAMPLE_CALL = {
    "call_id": "call_00000000000000000000000000",
    "phone_number": "+15555551234",
    "direction": "inbound",
    "status": "completed",
    "duration": 127,
    "recording_url": None,
    "from": "+13035559876",
    "to": "+15555551234",
    "agent_id": "agent_00000000000000000000000000",
    "sip_code": 200,
    "end_cause": "hangup",
}
_SAMPLES: dict[EventType, dict[str, Any]] = {
    "call.started": _SAMPLE_CALL | {"status": "in-progress", "duration": 0, "sip_code": None, "end_cause": None},
    "call.ended": _SAMPLE_CALL,
    "call.failed": _SAMPLE_CALL | {"status": "busy", "duration": 0, "sip_code": 486, "end_cause": "rejected"},
    "number.provisioned": {
        "phone_number_id": "phone_00000000000000000000000000",
        "phone_number": "+15555551234",
        "trunk_id": "trunk_00000000000000000000000000",
        "engine": "elevenlabs",
        "agent_id": "agent_00000000000000000000000000",
        "status": "active",
        "provisioned_at": "2024-01-20T16:30:00Z",
    },
    "trunk.updated": {
        "trunk_id": "trunk_00000000000000000000000000",
        "name": "Sample trunk",
        "provider": "elevenlabs",
        "status": "active",
        "updated_at": "2024-01-20T15:00:00Z",
    },
}
"""What test events carry, beside `test: true`; nothing of it exists."""


@dataclass(frozen=True)
class Webhooks:
    """What the rules need of the process."""

    settings: Settings
    sealer: Sealer


async def create(parts: Webhooks, conn: AsyncConnection, caller: Caller, body: WebhookCreate) -> tuple[Row, str | None]:
    """Add a webhook; return it, and the secret if it had to be made."""
    _refuse_private(parts.settings, body.url)
    if await queries.count(conn, caller) >= MOST_WEBHOOKS:
        raise ConflictError(f"An account has at most {MOST_WEBHOOKS} webhooks.", code="webhook_limit_reached")
    made = signing.new_secret() if body.secret is None else None
    now, webhook_id = utc_now(), new_id("webhook")
    values = {
        "id": webhook_id,
        "account_id": caller.account_id,
        "mode": caller.mode,
        "url": body.url,
        "events": body.events,
        "sealed_secret": parts.sealer.seal((made or body.secret or "").encode(), webhook_id),
        "status": "active",
        "created_at": now,
        "updated_at": now,
    }
    return await queries.add(conn, values), made


async def roll_secret(
    parts: Webhooks, conn: AsyncConnection, caller: Caller, webhook_id: str, body: SecretRoll | None
) -> tuple[Row, str | None]:
    """Give a webhook a new secret, and keep the old one valid for a day; return it, and the secret if we made it.

    Raises 409 secret_limit_reached while as many former ones are valid as may be: none ends before its day.
    """
    webhook = _found(await queries.find(conn, caller, webhook_id, lock=True))
    given = body.secret if body else None
    made = signing.new_secret() if given is None else None
    now = utc_now()
    formers = zip(webhook.former_sealed_secrets, webhook.former_secrets_expire_at, strict=True)
    valid = [(secret, expires_at) for secret, expires_at in formers if expires_at > now]
    if len(valid) >= MOST_FORMER_SECRETS:
        raise ConflictError(
            f"{MOST_FORMER_SECRETS} former secrets of this webhook are still valid.",
            code="secret_limit_reached",
            details={"expires_at": iso(valid[-1][1])},
        )
    valid.insert(0, (webhook.sealed_secret, now + timedelta(hours=SECRET_OVERLAP_HOURS)))
    values = {
        "sealed_secret": parts.sealer.seal((made or given or "").encode(), webhook_id),
        "former_sealed_secrets": [secret for secret, _ in valid],
        "former_secrets_expire_at": [expires_at for _, expires_at in valid],
        "updated_at": now,
    }
    return _found(await queries.update(conn, caller, webhook_id, values)), made


async def get(conn: AsyncConnection, caller: Caller, webhook_id: str) -> Row:
    """Return a webhook; raise 404 webhook_not_found."""
    return _found(await queries.find(conn, caller, webhook_id))


async def read(database: Database, caller: Caller, webhook_id: str) -> asyncpg.Record:
    """Return what is shown of a webhook; raise 404 webhook_not_found."""
    row = await queries.read(database, caller, webhook_id)
    if row is None:
        raise _not_found()
    return row


async def update(parts: Webhooks, conn: AsyncConnection, caller: Caller, webhook_id: str, body: WebhookUpdate) -> Row:
    """Change what was sent."""
    values = body.model_dump(exclude_unset=True)
    if body.url is not None:
        _refuse_private(parts.settings, body.url)
    if body.secret is not None:
        del values["secret"]
        values["sealed_secret"] = parts.sealer.seal(body.secret.encode(), webhook_id)
        values |= {"former_sealed_secrets": [], "former_secrets_expire_at": []}
    if body.status == "active":
        values |= {"failing_since": None, "disabled_at": None, "disabled_reason": None}
    elif body.status == "disabled":
        values |= {"disabled_at": utc_now(), "disabled_reason": "Disabled through the API."}
    return _found(await queries.update(conn, caller, webhook_id, {**values, "updated_at": utc_now()}))


async def delete(conn: AsyncConnection, caller: Caller, webhook_id: str) -> None:
    """Remove a webhook; what is under way to it is given up."""
    if not await queries.delete(conn, caller, webhook_id):
        raise _not_found()


async def send_test(conn: AsyncConnection, caller: Caller, webhook_id: str, body: TestEvent | None) -> Row:
    """Send a sample event to one webhook, a disabled one too; return the delivery."""
    webhook = await get(conn, caller, webhook_id)
    event_type = (body.event if body else None) or webhook.events[0]
    data = {**_SAMPLES[event_type], "test": True}
    delivery_id = await outbox.emit_test(conn, webhook, event_type, data)
    return _found_delivery(await queries.find_delivery(conn, caller, webhook_id, delivery_id))


async def resend(conn: AsyncConnection, caller: Caller, webhook_id: str, delivery_id: str) -> Row:
    """Send what a delivery brought once more; return the new delivery. Raises 404, or 409 webhook_disabled."""
    webhook = await get(conn, caller, webhook_id)
    delivery = _found_delivery(await queries.find_delivery(conn, caller, webhook_id, delivery_id))
    _refuse_disabled(webhook)
    (again,) = await outbox.deliver_again(conn, webhook_id, [delivery.event_id])
    return _found_delivery(await queries.find_delivery(conn, caller, webhook_id, again))


async def recover(conn: AsyncConnection, caller: Caller, webhook_id: str, since: datetime) -> int:
    """Have all events since a time sent that never reached the webhook; return how many there are now."""
    webhook = await get(conn, caller, webhook_id)
    _refuse_disabled(webhook)
    count = await queries.count_missed(conn, webhook, since)
    if count:
        await defer_recovery(conn, webhook_id, since.isoformat(), after="")
    return count


async def defer_recovery(conn: AsyncConnection, webhook_id: str, since: str, after: str) -> None:
    """Defer the recovery of what came since a time, with ids past `after`; one of a webhook runs at a time."""
    args = {"webhook_id": webhook_id, "since": since, "after": after}
    await defer(conn, RECOVER, args, queue=QUEUE, lock=f"{RECOVER} {webhook_id}")


async def list_deliveries(
    database: Database, caller: Caller, webhook_id: str, page: PageQuery
) -> tuple[list[dict[str, Any]], int]:
    """Return one page of a webhook's deliveries, each with its attempts, and how many there are."""
    await read(database, caller, webhook_id)
    return await queries.list_deliveries(database, webhook_id, page)


async def read_delivery(database: Database, caller: Caller, webhook_id: str, delivery_id: str) -> asyncpg.Record:
    """Return a delivery with its attempts; raise 404 webhook_not_found or delivery_not_found."""
    await read(database, caller, webhook_id)
    delivery = await queries.read_delivery(database, webhook_id, delivery_id)
    if delivery is None:
        raise _no_delivery()
    return delivery


async def read_event(database: Database, caller: Caller, event_id: str) -> bytes:
    """Return an event that is still kept, as it was sent; raise 404 event_not_found."""
    body = await queries.read_event(database, caller, event_id, kept_since())
    if body is None:
        raise NotFoundError("There is no event with this id, or none any more.", code="event_not_found")
    return body


def kept_since() -> datetime:
    """Return from when on events are listed: the whole of the day thirty days ago, UTC."""
    return (utc_now() - timedelta(days=EVENTS_KEPT_DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)


def _refuse_private(settings: Settings, url: str) -> None:
    """Say early what the guard at the socket would say with every delivery."""
    if not settings.private_webhooks_are_allowed and guard.is_forbidden_host(urlsplit(url).hostname or ""):
        raise InvalidParameterError("A webhook can't go to a private or local address.", field="url", provided=url)


def _refuse_disabled(webhook: Row) -> None:
    if webhook.status != "active":
        message = "This webhook is disabled; set its status to active first."
        raise ConflictError(message, code="webhook_disabled", details={"disabled_reason": webhook.disabled_reason})


def _found_delivery(row: Row | None) -> Row:
    if row is None:
        raise _no_delivery()
    return row


def _no_delivery() -> NotFoundError:
    return NotFoundError("There is no delivery with this id.", code="delivery_not_found")


def _found(row: Row | None) -> Row:
    if row is None:
        raise _not_found()
    return row


def _not_found() -> NotFoundError:
    return NotFoundError("There is no webhook with this id.", code="webhook_not_found")
