"""All calls in whose middle we are, and the user agent that we are there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from voxpria_routing.decision import Dial
from voxpria_routing.edge_api import Place
from voxpria_routing.events import Side
from voxpria_routing.hosts import bracketed
from voxpria_sip.endpoint import Endpoint, respond
from voxpria_sip.transaction import ServerTransaction
from voxpria_sip.transport import Address
from voxpria_sip.uri import MalformedError

from voxpria_edge.bridge.bridged import Bridged, OnFailed
from voxpria_edge.bridge.caller import Caller
from voxpria_edge.bridge.setup import Problem, SetUp
from voxpria_edge.bridge.side import EXTENSIONS
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.half import Half
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError
from voxpria_edge.proxy import messages

_log = structlog.get_logger(__name__)

_SOFTWARE = "VoxPria"


@dataclass(frozen=True)
class _Announced:
    """A call that we are to answer."""

    call: Call
    decision: Dial
    sound: Path


class Bridges:
    """All calls in whose middle we are, and the user agent that we are there."""

    def __init__(
        self,
        address: str,
        kamailio: Address,
        rtpengine: Rtpengine,
        on_changed: Callable[[Call], None],
        on_over: Callable[[Half], None],
        on_failed: OnFailed,
    ) -> None:
        """`on_changed` keeps a call with its bridge as it is from then on; `on_over` hears that a half was tried.

        `on_failed` hears why there is no call (any more), where it is not Kamailio that says so.
        """
        self._endpoint = Endpoint(address, {"INVITE": self._take_invite}, _SOFTWARE, EXTENSIONS)
        self._caller = Caller(self._endpoint, kamailio, on_over)
        self._rtpengine, self._on_changed, self._on_failed = rtpengine, on_changed, on_failed
        self._announced: dict[str, _Announced] = {}
        """Calls that are about to come in, by their id."""
        self._bridged: dict[str, Bridged] = {}

    async def open(self, port: int) -> int:
        """Listen, if possible on the port of our last run, and return the port."""
        try:
            await self._endpoint.transports.listen_udp(port)
        except OSError:
            await self._endpoint.transports.listen_udp(0)
        return self.port

    @property
    def port(self) -> int:
        """The UDP port that we listen on."""
        return self._endpoint.transports.ports["udp"]

    async def close(self) -> None:
        """Close the socket; the calls go on, and are taken up by our next run."""
        await self._endpoint.close()

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return which half of which call an INVITE is, if it came from us."""
        return self._caller.half_of(invite)

    def is_own(self, invite: messages.Invite) -> bool:
        """Tell whether an INVITE came from us, in this run or the last."""
        return self._caller.is_own(invite)

    def half(self, record: str) -> Half | None:
        """Return the half that is being dialled and has this record."""
        return self._caller.half(record)

    @property
    def place(self) -> str:
        """Where calls are sent in which somebody is to be told something first: `host:port`."""
        return f"{bracketed(self._endpoint.address)}:{self.port}"

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Know a call that is about to come in; both sides are connected when the one that is recorded knows this."""
        self._announced[call.id] = _Announced(call, decision, sound)

    async def _take_invite(self, transaction: ServerTransaction) -> None:
        announced = self._announced.pop(transaction.request.headers.get("X-VoxPria-Call-Id") or "", None)
        if announced is None or transaction.source != self._caller.kamailio:
            respond(transaction, 403, "Forbidden")
            return
        call, decision, sound = announced.call, announced.decision, announced.sound
        if decision.is_outbound:
            await self._set_up(call, lambda set_up: set_up.place_for(transaction, decision, sound))
        else:
            await self._set_up(call, lambda set_up: set_up.receive(transaction, decision, sound))
        respond(transaction, 500, "Server Internal Error")  # unless it was answered

    async def run(
        self, call: Call, order: Place, decision: Dial, sound: Path | None, connect: Callable[[], Dial | str]
    ) -> None:
        """Call the callee, then the agent by what `connect` decides (or why not), until both are connected."""
        await self._set_up(call, lambda set_up: set_up.place(order, decision, sound, connect))

    async def _set_up(self, call: Call, work: Callable[[SetUp], Awaitable[Problem | None]]) -> None:
        before = self._bridged.get(call.id)
        if before is not None:  # its INVITE came in again, as its caller had no answer when Kamailio died
            before.drop()
        bridged = self._bridged[call.id] = self._middle_of(call)
        try:
            problem = await work(SetUp(bridged, self._endpoint.address, self._caller, self._rtpengine))
            if problem is not None:
                bridged.fail(*problem)
        except (RtpengineError, OSError, MalformedError) as error:
            _log.warning("a call could not be set up", call_id=call.id, error=str(error))
            why = "The edge's media relay did not answer, or the other side's answer could not be read."
            bridged.fail("refused", why)
        finally:
            if not bridged.is_up:
                await bridged.hang_up()
                if self._bridged.get(call.id) is bridged:
                    del self._bridged[call.id]

    def _middle_of(self, call: Call) -> Bridged:
        return Bridged(call, self._endpoint, self._caller, self._rtpengine, self._on_changed, self._on_failed)

    async def hang_up(self, call_id: str) -> bool:
        """End both halves; False if we are not in the middle of that call."""
        bridged = self._bridged.get(call_id)
        if bridged is None:
            return False
        await bridged.hang_up()
        return True

    async def take_up(self, call: Call) -> bool:
        """Go on in the middle of a call of our last run; False if it was not connected yet."""
        bridge = call.bridge
        if bridge is None or bridge.callee is None or bridge.agent is None:
            return False
        bridged = self._bridged[call.id] = self._middle_of(call)
        bridged.adopt()
        try:
            await bridged.connect_media()  # it may not have come to that
        except RtpengineError as error:
            _log.warning("the media of a call was not looked after", call_id=call.id, error=str(error))
        return True

    def done(self, call: Call, by: Side | None) -> None:
        """Be done with a call that is over: who has not hung up is hung up on, also if we only hear of it now."""
        if call.bridge is None:
            return
        self._announced.pop(call.id, None)
        bridged = self._bridged.pop(call.id, None)
        if bridged is None:
            bridged = self._middle_of(call)
            bridged.adopt()
        bridged.close(by)
