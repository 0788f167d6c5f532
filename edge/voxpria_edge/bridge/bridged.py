"""One call in whose middle we are: its two dialogs, and the media session between them."""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
from voxpria_routing import events
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import Endpoint
from voxpria_sip.message import Request, Response
from voxpria_sip.transaction import LIFETIME_SECONDS, TransactionError

from voxpria_edge.bridge.caller import Caller
from voxpria_edge.bridge.own_sdp import facing
from voxpria_edge.bridge.side import AGENT, CALLEE, Side, Who
from voxpria_edge.calls.call import Bridge, Call
from voxpria_edge.kit.background import Background
from voxpria_edge.media import sdp
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError

_CONNECT_SECONDS = 15
_UNKNOWN_REQUESTS = 10_000
"""More than our last run can have sent within a call; a gap in CSeq is allowed (RFC 3261 section 12.2.2)."""
OnFailed = Callable[[str, events.EndCause, str], None]
"""Hears why there is no call (any more), by its id, as a cause of its end and a sentence."""
OF_ONE_DIALOG = frozenset(
    (
        *("via", "route", "record-route", "from", "to", "call-id", "cseq", "contact"),
        *("max-forwards", "content-length", "user-agent", "allow", "supported"),
    )
)
"""Headers that a request which is passed on does not take along."""


class Bridged:
    """One call."""

    def __init__(
        self,
        call: Call,
        endpoint: Endpoint,
        caller: Caller,
        rtpengine: Rtpengine,
        on_changed: Callable[[Call], None],
        on_failed: OnFailed,
    ) -> None:
        """`on_changed` keeps the call with its bridge as it is from then on; `on_failed` hears why it is over."""
        self.call = call
        self.bridge = call.bridge or Bridge()
        self.our_tag = self.bridge.tag or call.from_tag
        """Ours in the media session, until the agent has our place there."""
        self.ended = asyncio.Event()
        self._endpoint, self._caller, self._rtpengine = endpoint, caller, rtpengine
        self._on_changed, self._on_failed = on_changed, on_failed
        self.connected = asyncio.Event()
        """Set once each hears the other."""
        self._sides: list[Side] = []
        self._background = Background()

    @property
    def contact(self) -> str:
        """Where requests within the call reach us."""
        return self._endpoint.contact("udp", "edge")

    @property
    def is_up(self) -> bool:
        """Whether both are connected."""
        return self.bridge.callee is not None and self.bridge.agent is not None and not self.ended.is_set()

    def change(self, **changes: object) -> None:
        """Change what is known of the two sides."""
        self.bridge = msgspec.structs.replace(self.bridge, **changes)
        self.keep(bridge=self.bridge)

    def keep(self, **changes: object) -> None:
        """Change the call, and have it kept."""
        self.call = msgspec.structs.replace(self.call, **changes)
        self._on_changed(self.call)

    def adopt(self) -> None:
        """Take the requests of both halves, as the disk knows them: it has not heard of each request that we sent."""
        for dialog, who in ((self.bridge.callee, CALLEE), (self.bridge.agent, AGENT)):
            if dialog is not None:
                dialog.local_cseq += _UNKNOWN_REQUESTS
                self.take(dialog, who)
        self.change()

    def take(self, dialog: Dialog, who: Who) -> Side:
        """Take the requests of one half from now on."""
        side = Side(self, dialog, who)
        self._sides.append(side)
        self._endpoint.adopt(dialog, side)
        return side

    async def join(self, dialog: Dialog, answer: str) -> None:
        """Give the agent our place in the media session."""
        self.take(dialog, AGENT)
        self.change(agent=dialog, agent_sdp=answer)
        await self._answer_of_agent()

    async def offer_of_callee(self) -> str:
        """Offer what the callee said last in our place of the session; return it as the agent is to get it."""
        bridge = self.bridge
        assert bridge.callee is not None
        return await self._rtpengine.offer(
            self.call.id, bridge.callee.remote_tag, self.our_tag, bridge.callee_sdp, bridge.agent_flags
        )

    async def _answer_of_agent(self) -> None:
        """Have rtpengine send to each what the other said. The callee hears of no change: its ports and keys stay."""
        bridge = self.bridge
        assert bridge.callee is not None
        callee_tag = bridge.callee.remote_tag
        await self._rtpengine.answer(self.call.id, callee_tag, self.our_tag, bridge.agent_sdp, bridge.answer_flags)
        self.connected.set()

    async def connect_media(self) -> None:
        """Connect the media of both once more; again changes nothing."""
        await self.offer_of_callee()
        await self._answer_of_agent()

    async def is_connected(self) -> bool:
        """Wait a little until both are connected, if they are about to be."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connected.wait(), _CONNECT_SECONDS)
        return self.is_up

    async def renegotiate(self, side: Side, offered: str) -> str | None:
        """Return the answer to a side's new offer; None if it must be encrypted and is not.

        The other side hears of none: rtpengine stands between them.
        """
        bridge = self.bridge
        is_secure = bridge.is_callee_secure if side.who == CALLEE else bridge.is_agent_secure
        if is_secure and not sdp.is_encrypted(offered):
            return None
        assert bridge.callee is not None
        callee_tag, agent_tag = bridge.callee.remote_tag, self.our_tag
        if side.who == CALLEE:
            answer = await self._renew(callee_tag, offered, bridge.agent_flags, agent_tag, bridge.agent_sdp)
            self.change(callee_sdp=offered)
        else:
            answer = await self._renew(agent_tag, offered, bridge.flags, callee_tag, bridge.callee_sdp)
            self.change(agent_sdp=offered)
        return answer

    def moved(self, side: Side) -> None:
        """Keep where a side is from now on."""
        self.change(**{side.who: side.dialog})

    def said(self, side: Side) -> str:
        """Return what a side said of its media last, as it is when nobody holds."""
        return facing("", self.bridge.callee_sdp if side.who == CALLEE else self.bridge.agent_sdp)

    def take_answer(self, side: Side, answered: str) -> None:
        """Take what a side answers to an offer of ours; without the encryption that it must have, the call is over."""
        self._background.begin(self._take_answer(side, answered))

    async def _take_answer(self, side: Side, answered: str) -> None:
        with contextlib.suppress(RtpengineError):
            if await self.renegotiate(side, answered) is None:
                await self.hang_up()

    async def _renew(self, from_tag: str, offered: str, flags: str, to_tag: str, said: str) -> str:
        """Have rtpengine connect what one side offers with what the other said last; return the answer to the offer."""
        await self._rtpengine.offer(self.call.id, from_tag, to_tag, offered, flags)
        answered = facing(offered, said)
        return await self._rtpengine.answer(self.call.id, from_tag, to_tag, answered, self.bridge.answer_flags)

    async def pass_on(self, side: Side, request: Request) -> Response | None:
        """Send a side's request to the other, and return what that answers; None if there is no answer.

        The dialogs are two, so what names one of them does not go on.
        """
        other = next((each for each in self._sides if each is not side and not each.is_over), None)
        if other is None:
            return None
        sent = other.dialog.request(request.method)
        for name, value in request.headers:
            if name.lower() not in OF_ONE_DIALOG:
                sent.headers.add(name, value)
        sent.headers.add("Contact", self.contact)
        sent.body = request.body
        with contextlib.suppress(OSError, TransactionError):
            return await self._caller.send(sent)
        return None

    def over(self, side: Side) -> None:
        """One side has hung up: so does the other."""
        side.is_over = True
        self._background.begin(self.hang_up())

    def unacknowledged(self) -> None:
        """End the call: a side never said that it has our answer to its INVITE (RFC 3261 section 13.3.1.4)."""
        self.fail("lost", "One side never acknowledged that it has our answer (no ACK in 32 seconds).")

    def fail(self, cause: events.EndCause, why: str) -> None:
        """Say why there is no call, or none any more."""
        self._on_failed(self.call.id, cause, why)

    async def hang_up(self) -> None:
        """End what is up, and what is being set up."""
        self.ended.set()
        await asyncio.gather(*(self._leave(side) for side in self._sides if not side.is_over))

    async def _leave(self, side: Side) -> None:
        """Hang up on a side; a BYE that Kamailio did not take (it is being restarted) is for the next time."""
        side.is_over = True
        side.is_over = await self._caller.bye(side.dialog)

    def drop(self) -> None:
        """Go no further, and tell nobody."""
        self._on_changed, self._on_failed = _hear_nothing, _hear_nothing
        for side in self._sides:
            side.is_over = True
            self._endpoint.forget(side.dialog)
        self.ended.set()

    def close(self, by: events.Side | None) -> None:
        """Hang up on whoever has not hung up; requests that are repeated are answered for a while."""
        for side in self._sides:
            side.is_over = side.is_over or (by, side.who) in (("caller", CALLEE), ("agent", AGENT))
        self._background.begin(self.hang_up())
        asyncio.get_running_loop().call_later(LIFETIME_SECONDS, self._forget)

    def _forget(self) -> None:
        for side in self._sides:
            self._endpoint.forget(side.dialog)


def _hear_nothing(*_: object) -> None:
    pass
