"""The middle of calls that we place, or answer first: one half with the caller or callee, one to the agent (RFC 3725).

Both halves go through our own Kamailio, which treats them as it does any other; only their media is arranged here, in
one session of rtpengine's. The callee is offered media in our name, a caller is answered in it. Then the agent takes
our place in that session: it is offered what the other side said, and the ports stay, so that hears of no change.

We answer a caller first where an announcement is to be spoken before anything is recorded. Nobody else would do: an
agent that was called already would talk into it.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from voxpria_routing.decision import Dial
from voxpria_routing.edge_api import Place
from voxpria_routing.events import EndCause, Side
from voxpria_routing.hosts import bracketed, host_port
from voxpria_routing.media import asked_of_caller, codecs_of_caller
from voxpria_routing.snapshot import Trunk
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import Endpoint, new_tag, respond
from voxpria_sip.message import Headers, Request, Response
from voxpria_sip.transaction import LIFETIME_SECONDS, ClientTransaction, ServerTransaction, TransactionError
from voxpria_sip.transport import Address, Flow
from voxpria_sip.uri import Address as NameAddress
from voxpria_sip.uri import MalformedError

from voxpria_edge import consent, messages, negotiation, sdp
from voxpria_edge.background import Background
from voxpria_edge.calls import AGENT_TAG, Bridge, Call, Spoken
from voxpria_edge.half import Half
from voxpria_edge.rtpengine import Rtpengine, RtpengineError

_log = structlog.get_logger(__name__)

SOFTWARE = "VoxPria"
_ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, REFER, NOTIFY, MESSAGE"
_ANSWER_SECONDS = 900
"""Kamailio's own limits are shorter: on ringing, and on trying one server after the other."""
_BYE_SECONDS = 5
_CANCEL_SECONDS = 5
_CONNECT_SECONDS = 15
_ACK_SECONDS = 5
_DIRECTION = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\r?\n?", re.M)
_REVERSED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
_OWN_CODECS = {
    "PCMU": ("0", "PCMU/8000"),
    "PCMA": ("8", "PCMA/8000"),
    "G722": ("9", "G722/8000"),
    "OPUS": ("96", "opus/48000/2"),
}
"""What an offer of ours may name, by payload type and rtpmap; G.711 first, as nothing has to be made of it."""
_PORT, _CONNECTION = re.compile(r"^m=audio \d+ ", re.M), re.compile(r"^c=IN IP[46] [^\r\n]+", re.M)
_PLACES = re.compile(r"^a=(?:rtcp|candidate|crypto):?[^\r\n]*\r?\n", re.M)
_TAG = re.compile(r";\s*tag=[^;]*", re.I)
Problem = tuple[EndCause, str]
"""Why there is no call: a cause of its end, and a sentence."""
_INSECURE: Problem = ("insecure_media", "It answered without SRTP.")
_SPEAKS_OTHERWISE = {415, 488, 606}
"""Answers of a server that may speak something that was not offered yet."""
_OF_ONE_DIALOG = frozenset(
    (
        *("via", "route", "record-route", "from", "to", "call-id", "cseq", "contact"),
        *("max-forwards", "content-length", "user-agent", "allow", "supported"),
    )
)
"""Headers that a request which is passed on does not take along."""
_OF_ONE_INVITE = frozenset(
    (
        *("content-type", "require", "proxy-require", "session-expires", "min-se", "authorization"),
        *("proxy-authorization", "x-voxpria-call-id"),
    )
)
"""Headers of a caller's INVITE that the agent's does not take along besides: what they ask for we have dealt with."""
_GOES_ELSEWHERE = {408, 480, *range(500, 600)}


class Bridges:
    """All calls in whose middle we are, and the user agent that we are there."""

    def __init__(
        self,
        address: str,
        kamailio: Address,
        rtpengine: Rtpengine,
        on_changed: Callable[[Call], None],
        on_over: Callable[[Half], None],
        on_failed: Callable[[str, EndCause, str], None],
    ) -> None:
        """`on_changed` keeps a call with its bridge as it is from then on; `on_over` hears that a half was tried.

        `on_failed` hears why there is no call, by its id, as a cause of its end and a sentence, where it is not
        Kamailio that says so.
        """
        self.endpoint = Endpoint(address, {"INVITE": self._take_invite}, SOFTWARE)
        self.on_failed = on_failed
        self._announced: dict[str, _Announced] = {}
        """Calls that are about to come in, by their id."""
        self.kamailio, self.rtpengine = kamailio, rtpengine
        self.on_changed, self.on_over = on_changed, on_over
        self._halves: dict[tuple[str, str], Half] = {}
        self._bridged: dict[str, _Bridged] = {}

    async def open(self, port: int) -> int:
        """Listen, if possible on the port of our last run, and return the port."""
        try:
            await self.endpoint.transports.listen_udp(port)
        except OSError:
            await self.endpoint.transports.listen_udp(0)
        return self.port

    @property
    def port(self) -> int:
        """The UDP port that we listen on."""
        return self.endpoint.transports.ports["udp"]

    async def close(self) -> None:
        """Close the socket; the calls go on, and are taken up by our next run."""
        await self.endpoint.close()

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return which half of which call an INVITE is, if it came from us."""
        if (invite.source, invite.port) != (self.endpoint.address, self.port):
            return None
        return self._halves.get((messages.text(invite.call_id), messages.text(invite.from_tag)))

    def half(self, record: str) -> Half | None:
        """Return the half that is being dialled and has this record."""
        return next((half for half in self._halves.values() if half.record == record), None)

    def expect(self, sip_call_id: str, tag: str, half: Half) -> None:
        """Know an INVITE that is about to be sent."""
        self._halves[sip_call_id, tag] = half

    def forget(self, sip_call_id: str, tag: str) -> None:
        """Know it no longer."""
        half = self._halves.pop((sip_call_id, tag), None)
        if half is not None:
            self.on_over(half)

    @property
    def place(self) -> str:
        """Where calls are sent that we answer first: `host:port`."""
        return f"{bracketed(self.endpoint.address)}:{self.port}"

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Know a call that is about to come in: to be answered, told this, and only then connected with its agent."""
        self._announced[call.id] = _Announced(call, decision, sound)

    async def _take_invite(self, transaction: ServerTransaction) -> None:
        announced = self._announced.pop(transaction.request.headers.get("X-VoxPria-Call-Id") or "", None)
        if announced is None or transaction.source != self.kamailio:
            respond(transaction, 403, "Forbidden")
            return
        call, decision, sound = announced.call, announced.decision, announced.sound
        await self._set_up(call, lambda bridged: bridged.receive(transaction, decision, sound))
        respond(transaction, 500, "Server Internal Error")  # unless it was answered

    async def run(
        self, call: Call, order: Place, decision: Dial, sound: Path | None, connect: Callable[[], Dial | str]
    ) -> None:
        """Call the callee, then the agent by what `connect` decides (or why not), until both are connected."""
        await self._set_up(call, lambda bridged: bridged.set_up(order, decision, sound, connect))

    async def _set_up(self, call: Call, work: "Callable[[_Bridged], Awaitable[Problem | None]]") -> None:
        bridged = self._bridged[call.id] = _Bridged(self, call)
        try:
            problem = await work(bridged)
            if problem is not None:
                self.on_failed(call.id, *problem)
        except (RtpengineError, OSError, MalformedError) as error:
            _log.warning("a call could not be set up", call_id=call.id, error=str(error))
            why = "The edge's media relay did not answer, or the other side's answer could not be read."
            self.on_failed(call.id, "refused", why)
        finally:
            if not bridged.is_up:
                await bridged.hang_up()
                self._bridged.pop(call.id, None)

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
        bridged = self._bridged[call.id] = _Bridged(self, call)
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
            bridged = _Bridged(self, call)
            bridged.adopt()
        bridged.close(by)


@dataclass(frozen=True)
class _Announced:
    """A call that we are to answer."""

    call: Call
    decision: Dial
    sound: Path


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


class _Bridged:
    """One call."""

    def __init__(self, bridges: Bridges, call: Call) -> None:
        self._bridges, self._endpoint, self._rtpengine = bridges, bridges.endpoint, bridges.rtpengine
        self._call = call
        self.bridge = call.bridge or Bridge()
        self._our_tag = self.bridge.tag or call.from_tag
        self._ended, self._connected = asyncio.Event(), asyncio.Event()
        self._sides: list[_Side] = []
        self._background = Background()

    @property
    def contact(self) -> str:
        """Where requests within the call reach us."""
        return self._endpoint.contact("udp", "edge")

    @property
    def is_up(self) -> bool:
        """Whether both are connected."""
        return self.bridge.callee is not None and self.bridge.agent is not None and not self._ended.is_set()

    async def set_up(
        self, order: Place, decision: Dial, sound: Path | None, connect: Callable[[], Dial | str]
    ) -> Problem | None:
        """Call the callee, have it told what is to be said, and call the agent."""
        flags = negotiation.media(decision, decision.target, is_captured=self._call.is_captured)
        self._change(flags=flags.to_agent, answer_flags=flags.answer)
        ours = _own_offer(self._endpoint.address, codecs_of_caller(decision.carrier, is_outbound=True))
        offer = await self._rtpengine.offer(self._call.id, self._our_tag, None, ours, flags.to_agent)
        half = Half(self._call.id, self._call.id, decision, 0)
        request = self._request(self._our_tag, self._sender(order.from_), order.to, offer)
        callee = await self._invite(request, half)
        if callee is None:
            return None  # Kamailio has told how it went
        dialog, answer = callee
        if _is_insecure(half.target, answer):
            await self._bye(dialog)
            return _INSECURE
        self._change(callee=dialog, callee_sdp=answer, is_callee_secure=_is_secure(half.target))
        self._take(dialog, "callee")
        await self._rtpengine.answer(self._call.id, self._our_tag, _tag(dialog.remote), answer, flags.answer)
        if sound is not None:
            await self._speak(sound)
        found = connect()
        if isinstance(found, str):
            return "refused", found
        to_agent = _ToAgent(self._sender(order.to), order.from_, order.variables)
        return await self._connect(msgspec.structs.replace(found, offered=sdp.offered(answer)), to_agent)

    async def receive(self, transaction: ServerTransaction, decision: Dial, sound: Path) -> Problem | None:
        """Answer a caller, have it told what is to be said, and call the agent."""
        request, offered = transaction.request, transaction.request.body.decode(errors="replace")
        codec = negotiation.spoken_codec(decision)
        assert codec is not None  # else it would not have come here
        flags = negotiation.to_ourselves(decision, codec, is_captured=self._call.is_captured)
        offer = await self._rtpengine.offer(self._call.id, self._call.from_tag, None, offered, flags)
        ours = _own_answer(self._endpoint.address, offer)
        media = negotiation.media(decision, decision.target, is_captured=self._call.is_captured)
        answer = await self._rtpengine.answer(self._call.id, self._call.from_tag, self._our_tag, ours, media.answer)
        tag = new_tag()
        dialog = Dialog.of_called(request, tag)
        is_secure = asked_of_caller(decision.carrier, is_outbound=decision.is_outbound) == "required"
        self._change(callee=dialog, callee_sdp=offered, answer_flags=media.answer, is_callee_secure=is_secure)
        self._take(dialog, "callee").answered = transaction
        routes = [("Record-Route", route) for route in request.headers.lines("Record-Route")]
        headers = [*routes, ("Contact", self.contact), ("Allow", _ALLOW)]
        respond(transaction, 200, "OK", headers, tag=tag, body=answer.encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(transaction.acknowledged.wait(), _ACK_SECONDS)
        await self._speak(sound)
        kept = [(n, v) for n, v in request.headers if n.lower() not in _OF_ONE_DIALOG | _OF_ONE_INVITE]
        sender = _TAG.sub("", request.headers.get("From") or "")
        to_agent = _ToAgent(sender, decision.called, headers=tuple(kept), flags=negotiation.only(decision, codec))
        return await self._connect(decision, to_agent)

    async def _speak(self, sound: Path) -> None:
        """Have an announcement spoken to the end; where that fails, nothing is recorded."""
        callee = self.bridge.callee
        assert callee is not None
        try:
            seconds = await self._rtpengine.play(self._call.id, _tag(callee.remote), sound)
        except RtpengineError as error:
            _log.error("an announcement could not be spoken", call_id=self._call.id, error=str(error))
            await self._record_nothing()
            return
        self._keep(spoken=Spoken(sound=str(sound), at=datetime.now(UTC), seconds=seconds))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), seconds)

    async def _record_nothing(self) -> None:
        why = "the edge's media relay did not play it"
        self._keep(is_captured=False, unrecorded=consent.unspoken(why))
        with contextlib.suppress(RtpengineError):
            await self._rtpengine.stop_recording(self._call.id)

    async def _connect(self, decision: Dial, to_agent: _ToAgent) -> Problem | None:
        """Call the agent: its trunk, and where that does not take the call, what stands in for it."""
        if self._ended.is_set():
            return None
        for place in range(len(decision.targets)):
            half = Half(self._call.id, f"{self._call.id}.{place}", decision, place, to_agent.variables)
            agent = await self._call_agent(half, to_agent)
            if self._ended.is_set():
                return None
            if agent is not None and _is_insecure(half.target, agent[1]):
                await self._bye(agent[0])
                return _INSECURE
            if agent is not None:
                self._change(is_agent_secure=_is_secure(half.target))
                await self._join(*agent)
                return None
            if half.code not in _GOES_ELSEWHERE:
                break
        return _refusal(half)

    async def _call_agent(self, half: Half, to_agent: _ToAgent) -> tuple[Dialog, str] | None:
        """Offer the agent's server what the callee speaks, as its trunk wants it; all there is, if that won't do."""
        media = negotiation.media(half.decision, half.target, is_captured=self._call.is_captured)
        for flags in dict.fromkeys((media.to_agent, media.to_agent_again)):
            self._change(flags=media.to_caller, agent_flags=f"{flags} {to_agent.flags}".rstrip())
            offer = await self._offer_of_callee()
            request = self._request(AGENT_TAG + new_tag(), to_agent.sender, to_agent.called, offer)
            for name, value in to_agent.headers:
                request.headers.add(name, value)
            agent = await self._invite(request, half)
            if agent is not None or half.code not in _SPEAKS_OTHERWISE or self._ended.is_set():
                return agent
        return None

    async def _offer_of_callee(self) -> str:
        """Offer what the callee said last in our place of the session; return it as the agent is to get it."""
        bridge = self.bridge
        assert bridge.callee is not None
        return await self._rtpengine.offer(
            self._call.id, _tag(bridge.callee.remote), self._our_tag, bridge.callee_sdp, bridge.agent_flags
        )

    async def _join(self, dialog: Dialog, answer: str) -> None:
        """Give the agent our place in the media session."""
        self._take(dialog, "agent")
        self._change(agent=dialog, agent_sdp=answer)
        await self._answer_of_agent()

    async def _answer_of_agent(self) -> None:
        """Have rtpengine send to each what the other said. The callee hears of no change: its ports and keys stay."""
        bridge = self.bridge
        assert bridge.callee is not None
        callee_tag = _tag(bridge.callee.remote)
        await self._rtpengine.answer(self._call.id, callee_tag, self._our_tag, bridge.agent_sdp, bridge.answer_flags)
        self._connected.set()

    async def is_connected(self) -> bool:
        """Wait a little until both are connected, if they are about to be."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connected.wait(), _CONNECT_SECONDS)
        return self.is_up

    async def connect_media(self) -> None:
        """Connect the media of both once more; again changes nothing."""
        await self._offer_of_callee()
        await self._answer_of_agent()

    async def _invite(self, request: Request, half: Half) -> tuple[Dialog, str] | None:
        """Send an INVITE to Kamailio; return the dialog and its session description, or None if there is none."""
        sip_call_id, tag = self._call.sip_call_id, NameAddress.parse(request.headers.get("From") or "").tag or ""
        flow = await self._endpoint.transports.flow("udp", self._bridges.kamailio)
        self._bridges.expect(sip_call_id, tag, half)
        transaction = self._endpoint.send(request, flow)
        try:
            response = await self._final(transaction)
        finally:
            self._bridges.forget(sip_call_id, tag)
        half.code = response.status if response else 0
        if response is None or not response.is_success:
            return None
        dialog = Dialog.of_caller(request, response)
        ack = self._endpoint.send_ack(dialog.ack(1), flow)
        transaction.resend_ack = lambda: flow.send(ack)
        if self._ended.is_set():
            await self._bye(dialog)
            return None
        return dialog, response.body.decode(errors="replace")

    async def _final(self, transaction: ClientTransaction) -> Response | None:
        """Wait for the final answer; cancel if the call ends before."""
        waiting = asyncio.create_task(transaction.final())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait([waiting, ended], timeout=_ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CANCEL_SECONDS):
                        await transaction.heard.wait()
                        self._endpoint.cancel(transaction)
                        await asyncio.wait([waiting])
            return waiting.result() if waiting.done() else None
        except TransactionError:
            return None
        finally:
            waiting.cancel()
            ended.cancel()

    def _sender(self, number: str) -> str:
        return f"<sip:{number}@{bracketed(self._bridges.kamailio[0])}>"

    def _request(self, tag: str, sender: str, called: str, offer: str) -> Request:
        uri = f"sip:{called}@{host_port(*self._bridges.kamailio)}"
        headers = Headers([("Max-Forwards", "70")])
        headers.add("From", f"{sender};tag={tag}")
        headers.add("To", f"<{uri}>")
        headers.add("Call-ID", self._call.sip_call_id)
        headers.add("CSeq", "1 INVITE")
        headers.add("Contact", self.contact)
        headers.add("Allow", _ALLOW)
        headers.add("Content-Type", "application/sdp")
        return Request(headers, method="INVITE", uri=uri, body=offer.encode())

    def _change(self, **changes: object) -> None:
        self.bridge = msgspec.structs.replace(self.bridge, **changes)
        self._keep(bridge=self.bridge)

    def _keep(self, **changes: object) -> None:
        self._call = msgspec.structs.replace(self._call, **changes)
        self._bridges.on_changed(self._call)

    def adopt(self) -> None:
        """Take the requests of both halves."""
        for dialog, who in ((self.bridge.callee, "callee"), (self.bridge.agent, "agent")):
            if dialog is not None:
                self._take(dialog, who)

    def _take(self, dialog: Dialog, who: str) -> "_Side":
        side = _Side(self, dialog, who)
        self._sides.append(side)
        self._endpoint.adopt(dialog, side)
        return side

    def close(self, by: Side | None) -> None:
        """Hang up on whoever has not hung up; requests that are repeated are answered for a while."""
        for side in self._sides:
            side.is_over = side.is_over or (by, side.who) in (("caller", "callee"), ("agent", "agent"))
        self._background.begin(self.hang_up())
        asyncio.get_running_loop().call_later(LIFETIME_SECONDS, self._forget)

    def _forget(self) -> None:
        for side in self._sides:
            self._endpoint.forget(side.dialog)

    def over(self, side: "_Side") -> None:
        """One side has hung up: so does the other."""
        side.is_over = True
        self._background.begin(self.hang_up())

    async def hang_up(self) -> None:
        """End what is up, and what is being set up."""
        self._ended.set()
        up = [side for side in self._sides if not side.is_over]
        for side in up:
            side.is_over = True
        await asyncio.gather(*(self._bye(side.dialog) for side in up))

    async def _bye(self, dialog: Dialog) -> None:
        with contextlib.suppress(OSError, TransactionError, MalformedError, TimeoutError):
            async with asyncio.timeout(_BYE_SECONDS):
                flow: Flow = await self._endpoint.transports.flow("udp", self._bridges.kamailio)
                await self._endpoint.send(dialog.request("BYE"), flow).final()

    async def renegotiate(self, side: "_Side", offered: str) -> str | None:
        """Return the answer to a side's new offer; None if it must be encrypted and is not.

        The other side hears of none: rtpengine stands between them.
        """
        bridge = self.bridge
        is_secure = bridge.is_callee_secure if side.who == "callee" else bridge.is_agent_secure
        if is_secure and not _is_encrypted(offered):
            return None
        assert bridge.callee is not None
        callee_tag, agent_tag = _tag(bridge.callee.remote), self._our_tag
        if side.who == "callee":
            answer = await self._renew(callee_tag, offered, bridge.agent_flags, agent_tag, bridge.agent_sdp)
            self._change(callee_sdp=offered)
        else:
            answer = await self._renew(agent_tag, offered, bridge.flags, callee_tag, bridge.callee_sdp)
            self._change(agent_sdp=offered)
        return answer

    async def _renew(self, from_tag: str, offered: str, flags: str, to_tag: str, said: str) -> str:
        """Have rtpengine connect what one side offers with what the other said last; return the answer to the offer."""
        await self._rtpengine.offer(self._call.id, from_tag, to_tag, offered, flags)
        answered = facing(offered, said)
        return await self._rtpengine.answer(self._call.id, from_tag, to_tag, answered, self.bridge.answer_flags)

    async def pass_on(self, side: "_Side", request: Request) -> Response | None:
        """Send a side's request to the other, and return what that answers; None if there is no answer.

        The dialogs are two, so what names one of them does not go on.
        """
        other = next((each for each in self._sides if each is not side and not each.is_over), None)
        if other is None:
            return None
        sent = other.dialog.request(request.method)
        for name, value in request.headers:
            if name.lower() not in _OF_ONE_DIALOG:
                sent.headers.add(name, value)
        sent.headers.add("Contact", self.contact)
        sent.body = request.body
        with contextlib.suppress(OSError, TransactionError):
            flow = await self._endpoint.transports.flow("udp", self._bridges.kamailio)
            return await self._endpoint.send(sent, flow).final()
        return None


class _Side:
    """One of the two, as its dialog is used."""

    def __init__(self, bridged: _Bridged, dialog: Dialog, who: str) -> None:
        self.dialog, self.who = dialog, who
        self._bridged = bridged
        self.is_over = False
        self.answered: ServerTransaction | None = None
        """Its last INVITE that we took."""

    async def on_request(self, transaction: ServerTransaction) -> None:
        """Answer a request within the call."""
        request = transaction.request
        match request.method:
            case "BYE":
                respond(transaction, 200, "OK")
                self._bridged.over(self)
            case "INVITE" | "UPDATE" if request.body:
                await self._renegotiate(transaction)
            case "REFER" | "NOTIFY" | "INFO" | "MESSAGE":
                await self._pass_on(transaction)
            case "UPDATE" | "OPTIONS":
                respond(transaction, 200, "OK", [("Allow", _ALLOW)])
            case "INVITE":
                respond(transaction, 488, "Not Acceptable Here: an offer is needed")
            case _:
                respond(transaction, 501, "Not Implemented", [("Allow", _ALLOW)])

    async def _renegotiate(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        offered = request.body.decode(errors="replace")
        respond(transaction, 100, "Trying")
        if not await self._bridged.is_connected():
            respond(transaction, 491, "Request Pending")
            return
        try:
            answer = await self._bridged.renegotiate(self, offered)
        except RtpengineError:
            answer = None
        if answer is None:
            respond(transaction, 488, "Not Acceptable Here")
            return
        self.dialog.refresh_target(request)
        if request.method == "INVITE":
            self.answered = transaction
        contact = self._bridged.contact
        respond(transaction, 200, "OK", [("Contact", contact), ("Allow", _ALLOW)], body=answer.encode())

    async def _pass_on(self, transaction: ServerTransaction) -> None:
        """Let the two settle it: who is transferred acts on the REFER, as in a call that came in."""
        request = transaction.request
        answer = await self._bridged.pass_on(self, request) if await self._bridged.is_connected() else None
        if answer is None:
            respond(transaction, 480, "Temporarily Unavailable")
            return
        headers = [("Allow", _ALLOW)]
        if request.method == "REFER" and answer.is_success:  # it opens a dialog (RFC 3515 section 2.2)
            headers.append(("Contact", self._bridged.contact))
        respond(transaction, answer.status, answer.reason, headers)

    def on_ack(self, request: Request) -> None:
        """Take the ACK of our 200: it need not be repeated any more."""
        if self.answered is not None and self.answered.request.cseq[0] == request.cseq[0]:
            self.answered.acknowledged.set()


def facing(offered: str, answered: str) -> str:
    """Return a description that answers an offer by its direction (RFC 3264 section 6.1): who holds is listened to."""
    found = _DIRECTION.search(offered)
    direction = _REVERSED[found[1]] if found else "sendrecv"
    return _DIRECTION.sub("", answered).rstrip("\r\n") + f"\r\na={direction}\r\n"


def _is_insecure(target: Trunk, answer: str) -> bool:
    """Whether a side whose trunk requires SRTP answered without."""
    return _is_secure(target) and not _is_encrypted(answer)


def _is_secure(target: Trunk) -> bool:
    return target.media_encryption == "required"


def _is_encrypted(description: str) -> bool:
    return sdp.offered(description).encryption == "strong"


def _refusal(half: Half) -> Problem:
    """Return why no agent's server took the call, by the last one's answer."""
    if half.cause in ("unreachable", "forbidden"):
        return "unreachable", f"The agent's server, {half.target.server}, could not be reached."
    return "rejected", f"The agent's server refused the call: {half.code or 'no answer'}."


def _own_offer(address: str, preferred: Sequence[str]) -> str:
    """Return an offer in our own name: what the agent's side prefers, and all else that can be made of it.

    What the callee makes of it, the agent's server is offered; they need not have a codec in common.
    """
    family = "IP6" if ":" in address else "IP4"
    names = dict.fromkeys(name.upper() for name in (*preferred, *_OWN_CODECS) if name.upper() in _OWN_CODECS)
    types = [_OWN_CODECS[name] for name in names]
    lines = [
        *("v=0", f"o=voxpria 1 1 IN {family} {address}", "s=-", f"c=IN {family} {address}", "t=0 0"),
        f"m=audio 9 RTP/AVP {' '.join(kind for kind, _ in types)} 101",
        *(f"a=rtpmap:{kind} {rtpmap}" for kind, rtpmap in types),
        *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"),
    ]
    return "\r\n".join(lines) + "\r\n"


def _own_answer(address: str, offer: str) -> str:
    """Return an answer in our own name that takes an offer as it is."""
    family = "IP6" if ":" in address else "IP4"
    answer = _PLACES.sub("", offer)
    return _CONNECTION.sub(f"c=IN {family} {address}", _PORT.sub("m=audio 9 ", answer))


def _tag(header: str) -> str:
    return NameAddress.parse(header).tag or ""
