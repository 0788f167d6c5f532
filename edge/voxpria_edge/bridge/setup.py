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
from voxpria_routing.hosts import bracketed, host_port
from voxpria_routing.media import asked_of_caller, codecs_of_caller
from voxpria_routing.snapshot import Trunk
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import new_tag, respond
from voxpria_sip.message import Headers, Request
from voxpria_sip.transaction import ServerTransaction

from voxpria_edge import consent, negotiation, sdp
from voxpria_edge.bridge.bridged import OF_ONE_DIALOG, Bridged
from voxpria_edge.bridge.caller import Caller
from voxpria_edge.bridge.half import Half
from voxpria_edge.bridge.own_sdp import own_answer, own_offer
from voxpria_edge.bridge.side import ALLOW
from voxpria_edge.calls import AGENT_TAG, Call, Spoken
from voxpria_edge.rtpengine import Rtpengine, RtpengineError

_log = structlog.get_logger(__name__)

_ACK_SECONDS = 5
Problem = tuple[EndCause, str]
"""Why there is no call: a cause of its end, and a sentence."""
_INSECURE: Problem = ("insecure_media", "It answered without SRTP.")
_SPEAKS_OTHERWISE = {415, 488, 606}
"""Answers of a server that may speak something that was not offered yet."""
_OF_ONE_INVITE = frozenset(
    (
        *("content-type", "require", "proxy-require", "session-expires", "min-se", "authorization"),
        *("proxy-authorization", "x-voxpria-call-id"),
    )
)
"""Headers of a caller's INVITE that the agent's does not take along besides: what they ask for we have dealt with."""
_TAG = re.compile(r";\s*tag=[^;]*", re.I)
_GOES_ELSEWHERE = {408, 480, *range(500, 600)}


@dataclass(frozen=True)
class _ToAgent:
    """What the agent's half of a call is to say of it."""

    sender: str
    """From, without its tag."""
    called: str
    variables: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()
    flags: str = ""
    """rtpengine's, beside those of its trunk."""


class SetUp:
    """One call while its sides are being connected. All that works raises RtpengineError, OSError, MalformedError."""

    def __init__(self, bridged: Bridged, address: str, caller: Caller, rtpengine: Rtpengine) -> None:
        """`address` is our own, as session descriptions have it."""
        self._bridged, self._address, self._caller, self._rtpengine = bridged, address, caller, rtpengine

    @property
    def _call(self) -> Call:
        return self._bridged.call

    async def place(
        self, order: Place, decision: Dial, sound: Path | None, connect: Callable[[], Dial | str]
    ) -> Problem | None:
        """Call the callee, have it told what is to be said, and call the agent."""
        call, bridged = self._call, self._bridged
        flags = negotiation.media(decision, decision.target, is_captured=call.is_captured)
        bridged.change(flags=flags.to_agent, answer_flags=flags.answer)
        ours = own_offer(self._address, codecs_of_caller(decision.carrier, is_outbound=True))
        offer = await self._rtpengine.offer(call.id, bridged.our_tag, None, ours, flags.to_agent)
        half = Half(call.id, call.id, decision, 0)
        request = self._request(bridged.our_tag, self._sender(order.from_), order.to, offer)
        callee = await self._caller.invite(request, half, bridged.ended)
        if callee is None:
            return None  # Kamailio has told how it went
        dialog, answer = callee
        if _is_insecure(half.target, answer):
            await self._caller.bye(dialog)
            return _INSECURE
        bridged.change(callee=dialog, callee_sdp=answer, is_callee_secure=_is_secure(half.target))
        bridged.take(dialog, "callee")
        await self._rtpengine.answer(call.id, bridged.our_tag, dialog.remote_tag, answer, flags.answer)
        if sound is not None:
            await self._speak(sound)
        found = connect()
        if isinstance(found, str):
            return "refused", found
        to_agent = _ToAgent(self._sender(order.to), order.from_, order.variables)
        return await self._connect(msgspec.structs.replace(found, offered=sdp.offered(answer)), to_agent)

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
        bridged.take(dialog, "callee").answered = transaction
        routes = [("Record-Route", route) for route in request.headers.lines("Record-Route")]
        headers = [*routes, ("Contact", bridged.contact), ("Allow", ALLOW)]
        respond(transaction, 200, "OK", headers, tag=tag, body=answer.encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(transaction.acknowledged.wait(), _ACK_SECONDS)
        await self._speak(sound)
        kept = [(n, v) for n, v in request.headers if n.lower() not in OF_ONE_DIALOG | _OF_ONE_INVITE]
        sender = _TAG.sub("", request.headers.get("From") or "")
        to_agent = _ToAgent(sender, decision.called, headers=tuple(kept), flags=negotiation.only(decision, codec))
        return await self._connect(decision, to_agent)

    async def _speak(self, sound: Path) -> None:
        """Have an announcement spoken to the end; where that fails, nothing is recorded."""
        callee = self._bridged.bridge.callee
        assert callee is not None
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
        """Call the agent: its trunk, and where that does not take the call, what stands in for it."""
        if self._bridged.ended.is_set():
            return None
        for place in range(len(decision.targets)):
            half = Half(self._call.id, f"{self._call.id}.{place}", decision, place, to_agent.variables)
            agent = await self._call_agent(half, to_agent)
            if self._bridged.ended.is_set():
                return None
            if agent is not None and _is_insecure(half.target, agent[1]):
                await self._caller.bye(agent[0])
                return _INSECURE
            if agent is not None:
                self._bridged.change(is_agent_secure=_is_secure(half.target))
                await self._bridged.join(*agent)
                return None
            if half.code not in _GOES_ELSEWHERE:
                break
        return _refusal(half)

    async def _call_agent(self, half: Half, to_agent: _ToAgent) -> tuple[Dialog, str] | None:
        """Offer the agent's server what the callee speaks, as its trunk wants it; all there is, if that won't do."""
        media = negotiation.media(half.decision, half.target, is_captured=self._call.is_captured)
        for flags in dict.fromkeys((media.to_agent, media.to_agent_again)):
            self._bridged.change(flags=media.to_caller, agent_flags=f"{flags} {to_agent.flags}".rstrip())
            offer = await self._bridged.offer_of_callee()
            request = self._request(AGENT_TAG + new_tag(), to_agent.sender, to_agent.called, offer)
            for name, value in to_agent.headers:
                request.headers.add(name, value)
            agent = await self._caller.invite(request, half, self._bridged.ended)
            if agent is not None or half.code not in _SPEAKS_OTHERWISE or self._bridged.ended.is_set():
                return agent
        return None

    def _sender(self, number: str) -> str:
        return f"<sip:{number}@{bracketed(self._caller.kamailio[0])}>"

    def _request(self, tag: str, sender: str, called: str, offer: str) -> Request:
        uri = f"sip:{called}@{host_port(*self._caller.kamailio)}"
        headers = Headers([("Max-Forwards", "70")])
        headers.add("From", f"{sender};tag={tag}")
        headers.add("To", f"<{uri}>")
        headers.add("Call-ID", self._call.sip_call_id)
        headers.add("CSeq", "1 INVITE")
        headers.add("Contact", self._bridged.contact)
        headers.add("Allow", ALLOW)
        headers.add("Content-Type", "application/sdp")
        return Request(headers, method="INVITE", uri=uri, body=offer.encode())


def _is_insecure(target: Trunk, answer: str) -> bool:
    """Whether a side whose trunk requires SRTP answered without."""
    return _is_secure(target) and not sdp.is_encrypted(answer)


def _is_secure(target: Trunk) -> bool:
    return target.media_encryption == "required"


def _refusal(half: Half) -> Problem:
    """Return why no agent's server took the call, by the last one's answer."""
    if half.cause in ("unreachable", "forbidden"):
        return "unreachable", f"The agent's server, {half.target.server}, could not be reached."
    return "rejected", f"The agent's server refused the call: {half.code or 'no answer'}."
