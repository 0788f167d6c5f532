"""Reports what happened to the control plane: in order, as long as it takes."""

import asyncio

import structlog
from voxpria_routing.events import Batch

from voxpria_edge.calls.spool import Spool
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.backoff import Backoff

_log = structlog.get_logger(__name__)

_BATCH = 200


async def report(edge_id: str, spool: Spool, control_plane: ControlPlane) -> None:
    """Empty the spool into the control plane, until cancelled."""
    backoff = Backoff()
    while True:
        spool.grown.clear()
        oldest = await spool.oldest(_BATCH)
        if not oldest:
            await spool.grown.wait()
            continue
        batch = Batch(edge_id=edge_id, events=tuple(event for _, event in oldest))
        try:
            result = await control_plane.report(batch)
        except ControlPlaneError as error:
            _log.warning("events not taken", error=str(error), unsent=spool.unsent)
            await asyncio.sleep(backoff.next_seconds())
            continue
        backoff.reset()
        calls = {event.id: event.call_id for event in batch.events}
        for refused in result.rejected:
            call_id = calls.get(refused.id)
            _log.error("an event was refused for good", event_id=refused.id, call_id=call_id, error=refused.error)
        await spool.reported([place for place, _ in oldest], {refused.id: refused.error for refused in result.rejected})
