"""The edge's own copy of all routes: always one whole version, kept on disk, so that it outlives everything."""

import asyncio
from pathlib import Path

import structlog
from voxpria_routing.snapshot import Delta, Snapshot
from voxpria_routing.table import Table

from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.backoff import Backoff
from voxpria_edge.routes.route_store import RouteStore

_log = structlog.get_logger(__name__)

_ONLY_WHOLE = {404, 410}
"""Answers that say: from where we are, only a whole snapshot leads on."""


class Routes:
    """The routes in force, and where they come from."""

    def __init__(self, path: Path, token: str, control_plane: ControlPlane) -> None:
        self._store, self._control_plane = RouteStore(path, token), control_plane
        self.table = Table()

    def load(self) -> None:
        """Put the routes on disk into force, if there are any that can be read."""
        self.table = self._store.load()

    async def follow(self) -> None:
        """Take each newer version as soon as there is one, until cancelled."""
        backoff = Backoff()
        while True:
            try:
                newer = await self._newer()
            except ControlPlaneError as error:
                _log.warning("no routes", error=str(error))
                await asyncio.sleep(backoff.next_seconds())
                continue
            backoff.reset()
            if newer is not None:
                await self._take(newer)

    async def _newer(self) -> Snapshot | Delta | None:
        if self.table.version == 0:
            return await self._control_plane.snapshot(0)
        try:
            return await self._control_plane.changes(self.table.version)
        except ControlPlaneError as error:
            if error.status not in _ONLY_WHOLE:
                raise
            return await self._control_plane.snapshot(self.table.version)

    async def _take(self, newer: Snapshot | Delta) -> None:
        """On disk first: a version that was acknowledged is there after a restart."""
        try:
            if isinstance(newer, Snapshot):
                await asyncio.to_thread(self._store.put, newer)
                self.table = await asyncio.to_thread(Table, newer)
            else:
                is_long = await asyncio.to_thread(self._store.add, newer)
                self.table.apply(newer)
                if is_long:
                    await asyncio.to_thread(self._store.put, self.table.snapshot())
        except OSError as error:
            _log.error("the routes can't be stored", error=str(error))
            self._force(newer)
        _log.info("routes applied", version=self.table.version, numbers=len(self.table.numbers))

    def _force(self, newer: Snapshot | Delta) -> None:
        """Put a version into force that is not on disk; unless it is already."""
        if self.table.version == newer.version:
            return
        if isinstance(newer, Snapshot):
            self.table = Table(newer)
        else:
            self.table.apply(newer)
