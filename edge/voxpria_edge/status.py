"""Says how the edge is doing, and which calls it has open."""

import asyncio
from datetime import UTC, datetime

import structlog
from voxpria_routing.edge_api import OpenCalls, Part, Status

from voxpria_edge.calls.book import Book
from voxpria_edge.calls.spool import Spool
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.media.rtpengine import Rtpengine
from voxpria_edge.proxy.kamailio import Evapi
from voxpria_edge.routes.routes import Routes

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
_STATUS_SECONDS = 2.0
_OPEN_CALLS_SECONDS = 30.0


class StatusReporter:
    """Tells at once when a part goes or comes, and every few seconds that nothing has changed."""

    def __init__(
        self,
        edge_id: str,
        book: Book,
        kamailio: Evapi,
        routes: Routes,
        rtpengine: Rtpengine,
        spool: Spool,
        control_plane: ControlPlane,
    ) -> None:
        self._edge_id, self._book, self._kamailio, self._routes = edge_id, book, kamailio, routes
        self._rtpengine, self._spool, self._control_plane = rtpengine, spool, control_plane

    async def run(self) -> None:
        """Look and tell, until cancelled."""
        told_at = open_calls_at = float("-inf")
        told: dict[str, Part] = {}
        clock = asyncio.get_running_loop().time
        while True:
            parts = await self._parts()
            if parts != told or clock() - told_at > _STATUS_SECONDS:
                told_at = clock()
                told = parts if await self._tell(self._status(parts)) else {}
            if clock() - open_calls_at > _OPEN_CALLS_SECONDS and await self._tell_open_calls():
                open_calls_at = clock()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _parts(self) -> dict[str, Part]:
        has_media = await self._rtpengine.is_up()
        has_kamailio = self._kamailio.is_connected
        return {
            "kamailio": Part(is_up=has_kamailio, detail=None if has_kamailio else "not connected"),
            "rtpengine": Part(is_up=has_media, detail=None if has_media else "does not answer"),
        }

    def _status(self, parts: dict[str, Part]) -> Status:
        return Status(
            edge_id=self._edge_id,
            applied_version=self._routes.table.version,
            parts=parts,
            open_calls=len(self._book.open_calls),
            unsent_events=self._spool.unsent,
        )

    async def _tell_open_calls(self) -> bool:
        """Only with every older event sent, and with Kamailio heard: else a call could seem to be over."""
        if self._spool.unsent or not self._book.is_current:
            return False
        as_of = datetime.now(UTC)
        ids = tuple(call.id for call in self._book.open_calls)
        return await self._tell(OpenCalls(edge_id=self._edge_id, as_of=as_of, call_ids=ids))

    async def _tell(self, news: Status | OpenCalls) -> bool:
        try:
            await self._control_plane.tell(news)
        except ControlPlaneError as error:
            _log.debug("not told", error=str(error))
            return False
        return True
