"""Tells the control plane how the trunks are: their servers, and our registrations with them."""

import asyncio

import structlog
from voxpria_routing.edge_api import TrunkNews

from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.backoff import Backoff
from voxpria_edge.trunks.health import Health
from voxpria_edge.trunks.registrar import Registrar

_log = structlog.get_logger(__name__)

_EVERY_SECONDS = 0.5
_MOST_AT_ONCE = 500


async def tell_of_trunks(edge_id: str, health: Health, registrar: Registrar, control_plane: ControlPlane) -> None:
    """Tell what has changed, and now and then what has not, until cancelled."""
    backoff = Backoff(longest_seconds=30)
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        reports, registrations = health.reports(_MOST_AT_ONCE), registrar.news(_MOST_AT_ONCE)
        if not reports and not registrations:
            continue
        news = TrunkNews(edge_id=edge_id, reports=tuple(reports), registrations=registrations)
        try:
            await control_plane.tell(news)
        except ControlPlaneError as error:
            _log.warning("news of trunks not taken", error=str(error))
            await asyncio.sleep(backoff.next_seconds())
            continue
        backoff.reset()
        health.told(reports)
        registrar.told(registrations)
