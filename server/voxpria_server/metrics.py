"""/metrics, for Prometheus: what this process has counted, and how the whole stands now.

With `VOXPRIA_METRICS_TOKEN` it takes that bearer token. Without, only this machine may ask, and not through a proxy: to
everyone else the path is not there.
"""

import hmac
from ipaddress import ip_address

import msgspec
import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from voxpria_routing.edge_api import Part

from voxpria_server.errors import NotFoundError
from voxpria_server.kit.db import DatabasePart, DatabaseUnavailableError
from voxpria_server.kit.metrics import REGISTRY
from voxpria_server.routing import edges
from voxpria_server.settings import SettingsPart

_PROXIED = ("forwarded", "x-forwarded-for", "via")
_WAITING_JOBS = sa.text("SELECT queue_name, count(*) FROM procrastinate_jobs WHERE status = 'todo' GROUP BY queue_name")

_DUE_DELIVERIES = sa.text(
    "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND next_attempt_at <= now()"
)


async def _authorize(request: Request, settings: SettingsPart) -> None:
    """Answer 404 to whoever may not ask: a stranger need not know that there is something."""
    token = settings.metrics_token.get_secret_value()
    if not (_shows(request, token) if token else _is_local(request)):
        raise NotFoundError("There is nothing at this path.")


router = APIRouter(include_in_schema=False, dependencies=[Depends(_authorize)])


@router.get("/metrics")
async def get_metrics(database: DatabasePart) -> Response:
    """Return the metrics in Prometheus' text format."""
    now = CollectorRegistry()
    pool = Gauge("voxpria_database_connections_in_use", "Connections lent out now.", ("pool",), registry=now)
    for name, count in database.connections_in_use.items():
        pool.labels(name).set(count)
    is_up = Gauge("voxpria_database_up", "1 if the database answers.", registry=now)
    try:
        await _measure(database, now)
        is_up.set(1)
    except DatabaseUnavailableError:
        is_up.set(0)
    return Response(generate_latest(REGISTRY) + generate_latest(now), media_type=CONTENT_TYPE_LATEST)


async def _measure(database: DatabasePart, registry: CollectorRegistry) -> None:
    part_up = Gauge("voxpria_edge_part_up", "1 if the edge's part is up.", ("edge", "part"), registry=registry)
    calls = Gauge("voxpria_edge_open_calls", "Calls open on the edge.", ("edge",), registry=registry)
    unsent = Gauge("voxpria_edge_unsent_events", "Events that the edge has not yet sent.", ("edge",), registry=registry)
    waiting = Gauge("voxpria_jobs_waiting", "Jobs not yet begun, later ones too.", ("queue",), registry=registry)
    due = Gauge("voxpria_deliveries_due", "Deliveries of webhooks that are due or on their way.", registry=registry)
    async with database.read() as conn:
        due.set((await conn.execute(_DUE_DELIVERIES)).scalar_one())
        for edge in await edges.fresh(conn):
            calls.labels(edge.id).set(edge.open_calls)
            unsent.labels(edge.id).set(edge.unsent_events)
            for name, part in msgspec.convert(edge.parts, dict[str, Part]).items():
                part_up.labels(edge.id, name).set(part.is_up)
        for queue, count in await conn.execute(_WAITING_JOBS):
            waiting.labels(queue).set(count)


def _shows(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_local(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in _PROXIED):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
