"""Places the calls that the API asks for: waits for room, takes the call, keeps it on disk, and only then dials."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import structlog
from voxpria_routing.decide import connect, place
from voxpria_routing.decision import Cause, Decision, Dial
from voxpria_routing.edge_api import Place
from voxpria_routing.table import Table

from voxpria_edge.admission import consent
from voxpria_edge.admission.consent import SoundOf
from voxpria_edge.bridge.bridges import Bridges
from voxpria_edge.calls import beginnings
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.desk.desk import Desk
from voxpria_edge.desk.dialling import Dialling

_log = structlog.get_logger(__name__)

_PASSES = {Cause.TOO_MANY_CALLS, Cause.CALLS_TOO_FAST, Cause.TARGETS_DOWN, Cause.NO_SNAPSHOT, Cause.NO_ROUTE}
"""Refusals that time may mend: the routes may be on their way, and calls end."""
_AGAIN_SECONDS = 0.5
_MARGIN = timedelta(seconds=5)
"""How long before its deadline a call is given up, so that the reason is told and not only that it is late."""


class Placing:
    """One task a call, from its command until both sides are connected or there is no call."""

    def __init__(
        self,
        edge_id: str,
        book: Book,
        desk: Desk,
        dialling: Dialling,
        bridges: Bridges,
        control_plane: ControlPlane,
        table: Callable[[], Table],
        sound_of: SoundOf,
    ) -> None:
        self._edge_id, self._book, self._desk = edge_id, book, desk
        self._dialling, self._bridges = dialling, bridges
        self._control_plane, self._table, self._sound_of = control_plane, table, sound_of

    async def place(self, order: Place) -> None:
        """Place a call, if this edge gets it; once, however often it is asked to."""
        if order.call_id in self._book.calls or not await self._book.is_unheard(order.id):
            return
        decision = await self._decided(order)
        if decision is None or not await self._take(order):
            return
        if not isinstance(decision, Dial):
            await self._begin(order, decision)
            return
        agreed = consent.of_callee(decision, self._sound_of)
        call = await self._begin(order, agreed.decision, agreed.unrecorded)
        _log.info("placing a call", call_id=call.id)
        await self._bridges.run(
            call, order, agreed.decision, agreed.sound, lambda: self._connect(call.id, agreed.decision, order)
        )

    async def _begin(self, order: Place, decision: Decision, unrecorded: str | None = None) -> Call:
        call, told = beginnings.placed(order, decision, self._edge_id, datetime.now(UTC))
        call = msgspec.structs.replace(call, unrecorded=unrecorded)
        if isinstance(decision, Dial):
            self._dialling.expect(call, decision)
        await self._book.begin(order.id, call, told)
        return call

    async def _decided(self, order: Place) -> Decision | None:
        """Return what is to become of a call, waiting for room as long as there is time; None if it is late."""
        while True:
            left = order.expires_at - datetime.now(UTC)
            if left <= timedelta():
                return None
            decision = place(self._table(), order.number_id, order.from_, order.to, self._desk.load())
            is_final = isinstance(decision, Dial) or decision.cause not in _PASSES
            if self._book.is_current and (is_final or left < _MARGIN):
                return decision
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _take(self, order: Place) -> bool:
        while datetime.now(UTC) < order.expires_at:
            try:
                return await self._control_plane.take(order.call_id)
            except ControlPlaneError as error:
                _log.warning("a call was not taken", call_id=order.call_id, error=str(error))
                await asyncio.sleep(_AGAIN_SECONDS)
        return False

    def _connect(self, call_id: str, decision: Dial, order: Place) -> Dial | str:
        """Decide on the agent's half, by the routes as they are when the callee has answered."""
        found = connect(self._table(), decision.number, order.to, self._desk.load())
        if not isinstance(found, Dial):
            return found.explanation.summary
        self._dialling.expect_agent(call_id, found)
        number = msgspec.structs.replace(found.number, agent_id=order.agent_id)
        return msgspec.structs.replace(found, number=number)
