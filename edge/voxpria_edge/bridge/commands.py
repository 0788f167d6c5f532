"""What the control plane wants done: asked for all the time, each command done once a run."""

import asyncio

import structlog
from voxpria_routing.edge_api import MOST_KNOWN, Command, HangUp, Place

from voxpria_edge.bridge.placing import Placing
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.desk.hanging_up import HangingUp
from voxpria_edge.kit.background import Background
from voxpria_edge.kit.backoff import Backoff

_log = structlog.get_logger(__name__)


class Commands:
    """Takes commands, and does each beside the others."""

    def __init__(self, hanging_up: HangingUp, placing: Placing, control_plane: ControlPlane) -> None:
        self._hanging_up, self._placing, self._control_plane = hanging_up, placing, control_plane
        self._known: dict[str, None] = {}
        """Ids of the last commands taken, oldest first: the control plane repeats what is not in it."""
        self._background = Background()

    async def run(self) -> None:
        """Ask and do, until cancelled."""
        backoff = Backoff(longest_seconds=2)
        try:
            while True:
                try:
                    found = await self._control_plane.commands(tuple(self._known))
                except ControlPlaneError as error:
                    _log.warning("no commands", error=str(error))
                    await asyncio.sleep(backoff.next_seconds())
                    continue
                backoff.reset()
                for command in found:
                    self._take(command)
        finally:
            self._background.cancel()

    def _take(self, command: Command) -> None:
        if command.id in self._known:
            return
        self._known[command.id] = None
        while len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._background.begin(self._do(command))

    async def _do(self, command: Command) -> None:
        match command:
            case HangUp():
                _log.info("asked to end a call", call_id=command.call_id)
                await self._hanging_up.end_for_api(command.call_id)
            case Place():
                await self._place(command)

    async def _place(self, order: Place) -> None:
        try:
            await self._placing.place(order)
        except Exception:  # of one call; it ends by the control plane's deadline, or as a call that nobody leads
            _log.exception("a call could not be placed", call_id=order.call_id)
