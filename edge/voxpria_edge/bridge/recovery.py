"""What becomes of the calls of our last run."""

from collections.abc import Sequence

import structlog

from voxpria_edge.bridge.bridges import Bridges
from voxpria_edge.calls.call import Call
from voxpria_edge.desk.hanging_up import HangingUp

_log = structlog.get_logger(__name__)


async def take_up(kept: Sequence[Call], bridges: Bridges, hanging_up: HangingUp) -> None:
    """Go on in the middle of calls; what was not connected yet is given up, as nobody leads it."""
    for call in kept:
        if call.bridge is None or call.ended_at is not None or await bridges.take_up(call):
            continue
        _log.info("a call that was being set up is given up", call_id=call.id)
        await hanging_up.give_up_placed(call.id)
