"""/v1/webhooks and /v1/events."""

from datetime import timedelta
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import Caller, require
from voxpria_server.errors import raises
from voxpria_server.kit.answers import Done, encode
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Connection, DatabasePart
from voxpria_server.kit.pagination import Listing, Page
from voxpria_server.kit.sealing import SealerPart
from voxpria_server.settings import SettingsPart
from voxpria_server.webhooks import queries, service
from voxpria_server.webhooks.schemas import (
    Delivery,
    Event,
    EventType,
    NewWebhook,
    Recovering,
    Recovery,
    SecretRoll,
    TestEvent,
    Webhook,
    WebhookCreate,
    WebhookUpdate,
    render,
    render_delivery,
    render_new,
    shown_delivery,
)

router = APIRouter(tags=["Webhooks"], route_class=KeyedRoute)
Reader = Annotated[Caller, Depends(require("webhooks:read"))]
Writer = Annotated[Caller, Depends(require("webhooks:write"))]


async def _parts(settings: SettingsPart, sealer: SealerPart) -> service.Webhooks:
    return service.Webhooks(settings, sealer)


Parts = Annotated[service.Webhooks, Depends(_parts)]


@router.get("/webhooks", response_model=Listing[Webhook])
async def list_webhooks(caller: Reader, database: DatabasePart, page: Page) -> Response:
    """List webhooks, newest first."""
    rows, total = await queries.list_page(database, caller, page)
    return page.encode(rows, total)


@router.post("/webhooks", status_code=201, responses=raises("webhook_limit_reached"))
async def create_webhook(caller: Writer, parts: Parts, conn: Connection, body: WebhookCreate) -> NewWebhook:
    """Add a webhook. Without a `secret` one is made, and shown in this answer only."""
    row, made_secret = await service.create(parts, conn, caller, body)
    return render_new(row, made_secret)


@router.get("/webhooks/{webhook_id}", response_model=Webhook, responses=raises("webhook_not_found"))
async def get_webhook(caller: Reader, database: DatabasePart, webhook_id: str) -> Response:
    """Return a webhook."""
    return encode(dict(await service.read(database, caller, webhook_id)))


@router.patch("/webhooks/{webhook_id}", responses=raises("webhook_not_found"))
async def update_webhook(
    caller: Writer, parts: Parts, conn: Connection, webhook_id: str, body: WebhookUpdate
) -> Webhook:
    """Change a webhook."""
    return render(await service.update(parts, conn, caller, webhook_id, body))


@router.delete("/webhooks/{webhook_id}", responses=raises("webhook_not_found"))
async def delete_webhook(caller: Writer, conn: Connection, webhook_id: str) -> Done:
    """Remove a webhook."""
    await service.delete(conn, caller, webhook_id)
    return Done(message="Webhook deleted successfully")


@router.post("/webhooks/{webhook_id}/roll-secret", responses=raises("webhook_not_found", "secret_limit_reached"))
async def roll_secret(
    caller: Writer, parts: Parts, conn: Connection, webhook_id: str, body: SecretRoll | None = None
) -> NewWebhook:
    """Give a webhook a new secret, sent or made; the one before it stays valid for 24 hours, whatever follows.

    At most 10 former secrets are valid at once. A PATCH of `secret` ends all of them.
    """
    row, made_secret = await service.roll_secret(parts, conn, caller, webhook_id, body)
    return render_new(row, made_secret)


@router.post(
    "/webhooks/{webhook_id}/recover", status_code=202, responses=raises("webhook_not_found", "webhook_disabled")
)
async def recover(caller: Writer, conn: Connection, webhook_id: str, body: Recovery) -> Recovering:
    """Send every event since a time that has not reached the webhook: it failed, or came while it was disabled."""
    since = max(body.since, utc_now() - timedelta(days=service.EVENTS_KEPT_DAYS))
    count = await service.recover(conn, caller, webhook_id, since)
    return Recovering(webhook_id=webhook_id, since=iso(since), events=count)


@router.post("/webhooks/{webhook_id}/test", status_code=202, responses=raises("webhook_not_found"))
async def send_test_event(caller: Writer, conn: Connection, webhook_id: str, body: TestEvent | None = None) -> Delivery:
    """Send a sample event, with `test: true` in its data; what came of it is in the webhook's deliveries."""
    return render_delivery(await service.send_test(conn, caller, webhook_id, body))


@router.get(
    "/webhooks/{webhook_id}/deliveries", response_model=Listing[Delivery], responses=raises("webhook_not_found")
)
async def list_deliveries(caller: Reader, database: DatabasePart, webhook_id: str, page: Page) -> Response:
    """List a webhook's deliveries with their attempts, newest first."""
    rows, total = await service.list_deliveries(database, caller, webhook_id, page)
    return page.encode([shown_delivery(row) for row in rows], total)


@router.get(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}",
    response_model=Delivery,
    responses=raises("webhook_not_found", "delivery_not_found"),
)
async def get_delivery(caller: Reader, database: DatabasePart, webhook_id: str, delivery_id: str) -> Response:
    """Return a delivery with its attempts."""
    return encode(shown_delivery(await service.read_delivery(database, caller, webhook_id, delivery_id)))


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/resend",
    status_code=202,
    responses=raises("webhook_not_found", "delivery_not_found", "webhook_disabled"),
)
async def resend_delivery(caller: Writer, conn: Connection, webhook_id: str, delivery_id: str) -> Delivery:
    """Send the event of a delivery once more, as a new delivery; its `webhook-id` stays, so receivers know it again."""
    return render_delivery(await service.resend(conn, caller, webhook_id, delivery_id))


@router.get("/events", response_model=Listing[Event])
async def list_events(
    caller: Reader,
    database: DatabasePart,
    page: Page,
    type_: Annotated[EventType | None, Query(alias="type", description="Only events of this type.")] = None,
) -> Response:
    """List what happened in the last 30 days, newest first, whether or not a webhook was there to hear it."""
    bodies, total = await queries.list_events(database, caller, page, service.kept_since(), type_)
    return page.encode([msgspec.Raw(body) for body in bodies], total)


@router.get("/events/{event_id}", response_model=Event, responses=raises("event_not_found"))
async def get_event(caller: Reader, database: DatabasePart, event_id: str) -> Response:
    """Return an event of the last 30 days, a test event too; its id is the `webhook-id` of its deliveries."""
    return encode(msgspec.Raw(await service.read_event(database, caller, event_id)))
