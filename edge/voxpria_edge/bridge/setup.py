"""Connects the sides of a call: one is called, or answered, and told what is to be said; then the agent is called."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from voxpria_routing.decision import Dial
from voxpria_routing.edge_api import Place
from voxpria_routing.events import EndCause
from voxpria_routing.media import asked_of_caller, codecs_of_caller
from voxpria_routing.snapshot import Trunk
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import new_tag, respond
from voxpria_sip.message import Request, Response
from voxpria_sip.transaction import ServerTransaction

from voxpria_edge.admission import consent
from voxpria_edge.bridge.bridged import OF_ONE_DIALOG, Bridged
from voxpria_edge.bridge.caller import Caller
from voxpria_edge.bridge.calling import Calling, Pairs
from voxpria_edge.bridge.own_sdp import as_answered, own_answer, own_offer
from voxpria_edge.bridge.side import AGENT, ALLOW, CALLEE
from voxpria_edge.calls import endings
from voxpria_edge.calls.call import AGENT_TAG, CARRIER_TAG, Call, Spoken
from voxpria_edge.calls.half import Half
from voxpria_edge.kit.ids import half_of_agent
from voxpria_edge.media import negotiation, sdp
from voxpria_edge.media.negotiation import Media
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError

_log = structlog.get_logger(__name__)

Problem = tuple[EndCause, str]
"""Why there is no call: a cause of its end, and a sentence."""
_INSECURE: Problem = ("insecure_media", "It answered without SRTP.")
_OF_ONE_INVITE = frozenset(
    (
        *("content-type", "require", "proxy-require", "session-expires", "min-se", "authorization"),
        *("proxy-authorization", "x-voxpria-call-id"),
    )
)
"""Headers of a caller's INVITE that the agent's does not take along besides: what they ask for we have dealt with."""
_TAG = re.compile(r";\s*tag=[^;]*", re.I)


@dataclass(frozen=True)
class _ToAgent:
    """What the agent's half of a call is to say of it."""

    sender: str
    """From, without its tag."""
    called: str
    variables: dict[str, str] = field(default_factory=dict)
    headers: Pairs = ()
    flags: str = ""
    """rtpengine's, beside those of its trunk."""


class SetUp:
    """One call while its sides are being connected. All that works raises RtpengineError, OSError, MalformedError."""

    def __init__(self, bridged: Bridged, address: str, caller: Caller, rtpengine: Rtpengine) -> None:
        """`address` is our own, as session descriptions have it."""
        self._bridged, self._address, self._caller, self._rtpengine = bridged, address, caller, rtpengine
        self._calling = Calling(bridged, caller)

    @property
    def _call(self) -> Call:
        return self._bridged.call

    async def place(
        self, order: Place, decision: Dial, sound: Path | None, connect: Callable[[], Dial | str]
    ) -> Problem | None:
        """Call the callee, have it told what is to be said, and call the agent."""
        ours = own_offer(self._address, codecs_of_caller(decision.carrier, is_outbound=True))
        callee = await self._call_callee(decision, ours)
        if not isinstance(callee, Half):
            return callee
        if callee.dialog is None:
            return None  # Kamailio has told how it went
        await self._answer_of_callee(callee.dialog, callee.description)
        if sound is not None:
            await self._speak(sound)
        found = connect()
        if isinstance(found, str):
            return "refused", found
        to_agent = _ToAgent(self._calling.sender(order.to), order.from_, order.variables)
        return await self._connect(msgspec.structs.replace(found, offered=sdp.offered(callee.description)), to_agent)

    async def place_for(self, transaction: ServerTransaction, decision: Dial, sound: Path) -> Problem | None:
        """Call the callee for an agent that waits, have it told what is to be said, and answer the agent."""
        respond(transaction, 100, "Trying")
        ending = asyncio.create_task(self._end_if_canceled(transaction))
        try:
            return await self._place_for(transaction, decision, sound)
        finally:
            ending.cancel()

    async def _end_if_canceled(self, transaction: ServerTransaction) -> None:
        await transaction.canceled.wait()
        await self._bridged.hang_up()

    async def _place_for(self, transaction: ServerTransaction, decision: Dial, sound: Path) -> Problem | None:
        request, offered, tag = transaction.request, transaction.request.body.decode(errors="replace"), new_tag()
        routes = _routes(request)

        def ring() -> None:
            if "100rel" not in request.headers.all("Require"):  # else it would have to be reliable (RFC 3262 section 3)
                headers = [*routes, ("Contact", self._bridged.contact), ("Allow", ALLOW)]
                respond(transaction, 180, "Ringing", headers, tag=tag)

        callee = await self._call_callee(decision, offered, _kept(request), ring)
        if not isinstance(callee, Half):
            respond(transaction, *endings.UNFIT, tag=tag)
            return callee
        if callee.dialog is None:
            self._refuse(transaction, callee.answer)
            return None  # Kamailio has told how it went
        ring()  # on, for as long as the callee is told
        answer = await self._answer_of_callee(callee.dialog, callee.description)
        await self._speak(sound)
        if self._bridged.ended.is_set():
            self._refuse(transaction, None)
            return None
        self._bridged.change(
            agent=Dialog.of_called(request, tag),
            agent_record=half_of_agent(self._call.id),
            agent_sdp=as_answered(offered, answer),
            agent_flags=negotiation.media(callee.decision, callee.target, is_captured=self._call.is_captured).to_caller,
            is_agent_secure=asked_of_caller(decision.carrier, is_outbound=True) == "required",
        )
        assert self._bridged.bridge.agent is not None
        self._bridged.take(self._bridged.bridge.agent, AGENT).accept(transaction, routes, answer, tag)
        self._bridged.connected.set()
        return None

    def _refuse(self, transaction: ServerTransaction, answer: Response | None) -> None:
        """Give an agent that waits the answer that its callee gave, or the one that a callee gives who hangs up."""
        if transaction.canceled.is_set():
            respond(transaction, 487, "Request Terminated")
        elif answer is not None and not answer.is_success:
            told = [(name, value) for name in ("Reason", "Retry-After") for value in answer.headers.lines(name)]
            respond(transaction, answer.status, answer.reason, told)
        else:
            respond(transaction, *endings.API_ANSWER)

    async def receive(self, transaction: ServerTransaction, decision: Dial, sound: Path) -> Problem | None:
        """Answer a caller, have it told what is to be said, and call the agent."""
        call, bridged = self._call, self._bridged
        request, offered = transaction.request, transaction.request.body.decode(errors="replace")
        codec = negotiation.spoken_codec(decision)
        assert codec is not None  # else it would not have come here
        flags = negotiation.to_ourselves(decision, codec, is_captured=call.is_captured)
        offer = await self._rtpengine.offer(call.id, call.from_tag, None, offered, flags)
        ours = own_answer(self._address, offer)
        media = negotiation.media(decision, decision.target, is_captured=call.is_captured)
        answer = await self._rtpengine.answer(call.id, call.from_tag, bridged.our_tag, ours, media.answer)
        tag = new_tag()
        dialog = Dialog.of_called(request, tag)
        is_secure = asked_of_caller(decision.carrier, is_outbound=decision.is_outbound) == "required"
        bridged.change(callee=dialog, callee_sdp=offered, answer_flags=media.answer, is_callee_secure=is_secure)
        bridged.take(dialog, CALLEE).accept(transaction, _routes(request), answer, tag)
        await self._acknowledged(transaction)
        await self._speak(sound)
        sender = _TAG.sub("", request.headers.get("From") or "")
        to_agent = _ToAgent(sender, decision.called, headers=_kept(request), flags=negotiation.only(decision, codec))
        return await self._connect(decision, to_agent)

    async def _acknowledged(self, transaction: ServerTransaction) -> None:
        """Wait until a caller has our answer; the call ends if it never does."""
        waiting = [asyncio.create_task(each.wait()) for each in (transaction.acknowledged, self._bridged.ended)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waiting:
                each.cancel()

    async def _speak(self, sound: Path) -> None:
        """Have an announcement spoken to the end; where that fails, nothing is recorded."""
        callee = self._bridged.bridge.callee
        assert callee is not None
        if self._bridged.ended.is_set():
            return
        try:
            seconds = await self._rtpengine.play(self._call.id, callee.remote_tag, sound)
        except RtpengineError as error:
            _log.error("an announcement could not be spoken", call_id=self._call.id, error=str(error))
            await self._record_nothing()
            return
        self._bridged.keep(spoken=Spoken(sound=str(sound), at=datetime.now(UTC), seconds=seconds))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._bridged.ended.wait(), seconds)

    async def _record_nothing(self) -> None:
        why = "the edge's media relay did not play it"
        self._bridged.keep(is_captured=False, unrecorded=consent.unspoken(why))
        with contextlib.suppress(RtpengineError):
            await self._rtpengine.stop_recording(self._call.id)

    async def _connect(self, decision: Dial, to_agent: _ToAgent) -> Problem | None:
        """Call the agent, and give it our place."""

        async def described(half: Half, media: Media, flags: str) -> Request:
            self._bridged.change(flags=media.to_caller, agent_flags=f"{flags} {to_agent.flags}".rstrip())
            offer = await self._bridged.offer_of_callee()
            return self._calling.invite(AGENT_TAG, to_agent.sender, to_agent.called, offer, to_agent.headers)

        half = Half(self._call.id, f"{self._call.id}.0", decision, 0, to_agent.variables)
        agent = await self._calling.call(half, described)
        if self._bridged.ended.is_set():
            return None
        if agent.dialog is None:
            return _refusal(agent)
        if _is_insecure(agent):
            await self._caller.bye(agent.dialog)
            return _INSECURE
        self._bridged.change(
            is_agent_secure=_is_secure(agent.target), agent_record=agent.record, agent_trunk_id=agent.target.id
        )
        await self._bridged.join(agent.dialog, agent.description)
        return None

    async def _call_callee(
        self, decision: Dial, offered: str, headers: Pairs = (), on_ringing: Callable[[], None] = lambda: None
    ) -> Half | Problem:
        """Call the callee, with an offer in our place of the session, and headers beside ours; return the last try."""
        call, bridged, sender = self._call, self._bridged, self._calling.sender(decision.caller)

        async def described(half: Half, media: Media, flags: str) -> Request:
            bridged.change(flags=flags, answer_flags=media.answer)
            offer = await self._rtpengine.offer(call.id, bridged.our_tag, None, offered, flags)
            return self._calling.invite(CARRIER_TAG, sender, decision.called, offer, headers)

        callee = await self._calling.call(Half(call.id, call.id, decision, 0), described, on_ringing)
        if callee.dialog is None:
            return callee
        if _is_insecure(callee):
            await self._caller.bye(callee.dialog)
            return _INSECURE
        is_secure = _is_secure(callee.target)
        bridged.change(callee=callee.dialog, callee_sdp=callee.description, is_callee_secure=is_secure)
        bridged.take(callee.dialog, CALLEE)
        return callee

    async def _answer_of_callee(self, dialog: Dialog, description: str) -> str:
        """Return what the callee has answered, as it is for whoever has our place in the session."""
        bridged = self._bridged
        flags = bridged.bridge.answer_flags
        return await self._rtpengine.answer(bridged.call.id, bridged.our_tag, dialog.remote_tag, description, flags)


def _kept(request: Request) -> Pairs:
    """Return the headers of an INVITE that go on in ours."""
    return tuple((n, v) for n, v in request.headers if n.lower() not in OF_ONE_DIALOG | _OF_ONE_INVITE)


def _routes(request: Request) -> list[tuple[str, str]]:
    return [("Record-Route", route) for route in request.headers.lines("Record-Route")]


def _is_insecure(half: Half) -> bool:
    """Whether a side whose trunk requires SRTP answered without."""
    return _is_secure(half.target) and not sdp.is_encrypted(half.description)


def _is_secure(target: Trunk) -> bool:
    return target.media_encryption == "required"


def _refusal(half: Half) -> Problem:
    """Return why no agent's server took the call, by the last one's answer."""
    if half.cause in ("unreachable", "forbidden"):
        return "unreachable", f"The agent's server, {half.target.server}, could not be reached."
    return "rejected", f"The agent's server refused the call: {half.code or 'no answer'}."
