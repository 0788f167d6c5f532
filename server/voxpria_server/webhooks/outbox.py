"""The outbox: an event and its deliveries are written in the transaction of what they tell of.

So nothing is announced that did not happen, and nothing that happened stays unannounced.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit import tracing
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Row
from voxpria_server.kit.ids import new_id
from voxpria_server.webhooks import queries
from voxpria_server.webhooks.canonical import dumps
from voxpria_server.webhooks.schemas import EventType

CHANNEL = "voxpria_deliveries"
"""Told when there are new deliveries."""


@dataclass(frozen=True)
class Happening:
    """Something that an account's webhooks are to be told of. `data` must be JSON."""

    account_id: str
    mode: str
    type: EventType
    data: Mapping[str, Any]
    at: datetime
    traceparent: str | None = None
    """The trace that its deliveries belong to; default: the present one."""


async def emit(
    conn: AsyncConnection, account_id: str, mode: str, event_type: EventType, data: Mapping[str, Any]
) -> None:
    """Tell the account's webhooks of something that happens now, once the caller's transaction is committed."""
    await emit_all(conn, [Happening(account_id, mode, event_type, data, utc_now())])


async def emit_all(conn: AsyncConnection, happenings: Sequence[Happening]) -> None:
    """Tell of many things, in their order, in two statements."""
    if not happenings:
        return
    hooks: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for hook in await queries.subscribers(conn, {(one.account_id, one.mode) for one in happenings}):
        hooks[hook.account_id, hook.mode].append(hook)
    events, pairs = [], []
    for one in happenings:
        event = _event(one.type, one.data, one.at) | {"account_id": one.account_id, "mode": one.mode, "is_test": False}
        event["traceparent"] = one.traceparent or event["traceparent"]
        events.append(event)
        pairs += [(hook.id, event["id"]) for hook in hooks[one.account_id, one.mode] if one.type in hook.events]
    await _add(conn, events, pairs)


async def emit_test(conn: AsyncConnection, webhook: Row, event_type: EventType, data: Mapping[str, Any]) -> str:
    """Send an event that did not happen to one webhook, at its owner's wish; return the delivery's id."""
    owner = {"account_id": webhook.account_id, "mode": webhook.mode, "is_test": True}
    event = _event(event_type, data, utc_now()) | owner
    (delivery_id,) = await _add(conn, [event], [(webhook.id, event["id"])])
    return delivery_id


async def deliver_again(conn: AsyncConnection, webhook_id: str, event_ids: Sequence[str]) -> list[str]:
    """Send events to a webhook once more, as deliveries of their own; return these deliveries' ids."""
    return await _add(conn, [], [(webhook_id, event_id) for event_id in event_ids])


def _event(event_type: EventType, data: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return what an event's row holds, whosever it is."""
    event_id = new_id("evt")
    body = {"event": event_type, "timestamp": iso(at), "data": dict(data), "id": event_id}
    return {
        "id": event_id,
        "type": event_type,
        "body": dumps(body),
        "created_at": utc_now(),
        "traceparent": tracing.traceparent(),
    }


async def _add(
    conn: AsyncConnection, events: Sequence[Mapping[str, Any]], pairs: Iterable[tuple[str, str]]
) -> list[str]:
    """Write events, and a delivery for each pair of a webhook's and an event's id; return the deliveries' ids."""
    deliveries = [(new_id("dlv"), webhook_id, event_id) for webhook_id, event_id in pairs]
    await queries.add_events(conn, events, deliveries, CHANNEL)
    return [delivery_id for delivery_id, *_ in deliveries]
