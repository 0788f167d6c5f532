"""The simulated carrier: places a call, talks, listens, and tells how it went."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from voxpria_sip.endpoint import Endpoint
from voxpria_sip.message import Response
from voxpria_sip.transaction import TransactionError
from voxpria_sip.transport import Address
from voxpria_sip.uri import MalformedError

from voxpria_sandbox.agent import AgentCall, SipAgent
from voxpria_sandbox.call import Call
from voxpria_sandbox.invitation import Invitation, Invitee
from voxpria_sandbox.media.g711 import Samples
from voxpria_sandbox.media.pacer import Pacer
from voxpria_sandbox.media.speech import Speech
from voxpria_sandbox.media.stream import MediaStream
from voxpria_sandbox.settings import SOFTWARE
from voxpria_sandbox.sip import sdp
from voxpria_sandbox.sip.digest import Credentials

MAX_CALLS = 20
DEFAULT_WORDS = "Hello, this is a call from the sandbox's carrier. I am a simulated caller, and this is my voice."
_GRACE_SECONDS = 5
"""How long the agent's hang-up may take to reach us."""
_PROGRESS = {100: "trying", 180: "ringing", 183: "ringing"}
_TIMEOUT, _UNAVAILABLE = 408, 503

log = structlog.get_logger(__name__)
Notify = Callable[[str, dict[str, Any]], None]
"""Is told of each step: its name, and what is known of it."""


class BusyError(Exception):
    """All of the carrier's lines are in use."""


@dataclass(frozen=True)
class Order:
    """A call to be placed."""

    to: str
    caller: str = "+13038921234"
    talk_seconds: float = 5
    words: str | None = None
    """What the caller says; None is a default sentence, nothing is silence."""
    digits: str = ""
    """Keys that the caller presses once it has listened for a while."""
    digits_after_seconds: float = 1
    hangup_by: Literal["caller", "agent"] = "caller"
    transport: Literal["udp", "tcp"] = "udp"
    trunk_id: str | None = None
    host: str | None = None
    """Host of the request URI; None is the address that is called."""
    credentials: Credentials | None = None


@dataclass
class Result:
    """How a call went, as `POST /carrier/calls` tells it."""

    answered: bool = False
    sip_code: int | None = None
    sip_reason: str | None = None
    call_id: str | None = None
    ended_by: Literal["caller", "agent", "edge"] | None = None
    duration_seconds: float = 0.0
    heard_speech_seconds: float = 0.0
    referred_to: str | None = None
    """Where the agent transferred the caller to."""
    packets_sent: int = 0
    packets_received: int = 0
    timings_ms: dict[str, int] = field(default_factory=dict)


class Carrier:
    """Places calls from its endpoint to one address, at most 20 at once."""

    def __init__(self, address: str, edge: Address, agent: SipAgent, speech: Speech, pacer: Pacer) -> None:
        self.endpoint = Endpoint(address, {}, SOFTWARE)
        self.edge, self.agent, self.speech, self.pacer = edge, agent, speech, pacer
        self._live: set[asyncio.Task[Result]] = set()

    def start(self, order: Order, notify: Notify) -> "asyncio.Task[Result]":
        """Begin a call; cancelling the task ends it by BYE or CANCEL. Raises BusyError.

        The task raises OSError or SpeechError if the call could not even be tried.
        """
        if len(self._live) >= MAX_CALLS:
            raise BusyError
        task = asyncio.create_task(_PlacedCall(self, order, notify).run())
        self._live.add(task)
        task.add_done_callback(self._live.discard)
        return task

    async def close(self) -> None:
        """End every call."""
        tasks = [*self._live]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _PlacedCall:
    def __init__(self, carrier: Carrier, order: Order, notify: Notify) -> None:
        self._carrier, self._order, self._notify = carrier, order, notify
        self._result = Result()
        self._started_at = time.monotonic()
        self._sip_call_id = ""

    async def run(self) -> Result:
        words = DEFAULT_WORDS if self._order.words is None else self._order.words
        samples = await self._carrier.speech.say(words)
        media = MediaStream(self._carrier.endpoint.address, self._carrier.pacer)
        await media.open()
        try:
            await self._place(media, samples, words)
        finally:
            media.close()
        return self._summed_up(media)

    async def _place(self, media: MediaStream, samples: Samples, words: str) -> None:
        self._started_at = time.monotonic()
        self._notify("calling", {"to": self._order.to, "from": self._order.caller})
        try:
            outcome = await self._invited(media)
        except (TransactionError, TimeoutError):
            self._fail(_TIMEOUT, "Request Timeout: nobody answered")  # RFC 3261 section 8.1.3.1
        except OSError as error:
            self._fail(_UNAVAILABLE, f"Service Unavailable: {error.strerror or 'the connection failed'}")
        except (MalformedError, sdp.UnacceptableError) as error:
            self._fail(self._result.sip_code, f"an answer of no use: {error}")
        else:
            if isinstance(outcome, Call):
                await self._talk(outcome, samples, words)

    async def _invited(self, media: MediaStream) -> Call | Response:
        host, port = self._carrier.edge
        transport, trunk = self._order.transport, self._order.trunk_id
        uri = f"sip:{self._order.to}@{self._order.host or f'{host}:{port}'}"
        uri += f";transport={transport}" if transport != "udp" else ""
        uri += f";voxpria-trunk={trunk}" if trunk else ""
        invitee = Invitee(uri, self._order.caller, self._order.credentials)
        flow = await self._carrier.endpoint.transports.flow(transport, (host, port))
        invitation = Invitation(self._carrier.endpoint, flow, invitee, media)
        self._sip_call_id = invitation.call_id
        return await invitation.answered(self._heard)

    def _heard(self, response: Response) -> None:
        self._result.call_id = response.headers.get("X-VoxPria-Call-Id") or self._result.call_id
        if response.is_final:
            self._result.sip_code, self._result.sip_reason = response.status, response.reason
        name = "answered" if response.is_success else _PROGRESS.get(response.status)
        if name is not None:
            self._mark(name)
        self._notify(name or "response", {"sip_code": response.status, "sip_reason": response.reason})

    def _fail(self, code: int | None, reason: str) -> None:
        self._result.sip_code, self._result.sip_reason = code, reason

    async def _talk(self, call: Call, samples: Samples, words: str) -> None:
        self._result.answered = True
        played, hearer = call.media.play(samples), self._agent_call()
        hearing = asyncio.create_task(hearer.hear(words, played)) if hearer is not None else None
        try:
            if self._order.digits:
                await _ended(call, self._order.digits_after_seconds)
                call.media.press(self._order.digits)
            await _ended_or_referred(call, self._order.talk_seconds)
            self._result.referred_to = call.referred_to
            agent_call = self._agent_call()
            if self._order.hangup_by == "agent" and agent_call is not None:
                await agent_call.hang_up()
                await _ended(call, _GRACE_SECONDS)
        finally:
            await call.hang_up()
            if hearing is not None:
                hearing.cancel()
        end = call.ended.result()
        self._result.ended_by = "caller" if end.by == "us" else self._other_side()
        self._result.duration_seconds = round(end.at - call.answered_at, 2)
        self._mark("ended", end.at)
        self._notify("ended", {"ended_by": self._result.ended_by})

    def _other_side(self) -> Literal["agent", "edge"]:
        agent_call = self._agent_call()
        return "agent" if agent_call is not None and agent_call.has_hung_up else "edge"

    def _agent_call(self) -> AgentCall | None:
        return self._carrier.agent.find(self._sip_call_id, self._result.call_id)

    def _mark(self, name: str, at: float | None = None) -> None:
        """Note when something happened; the first time counts."""
        elapsed = (time.monotonic() if at is None else at) - self._started_at
        self._result.timings_ms.setdefault(name, round(elapsed * 1000))

    def _summed_up(self, media: MediaStream) -> Result:
        result, agent_call = self._result, self._agent_call()
        result.heard_speech_seconds = media.heard_speech_seconds
        result.packets_sent, result.packets_received = media.packets_sent, media.packets_received
        if media.first_heard_at is not None:
            self._mark("first_audio", media.first_heard_at)
        if result.call_id is None and agent_call is not None:
            result.call_id = agent_call.call_id
        return result


async def _ended(call: Call, seconds: float) -> None:
    """Wait for the end of a call, but no longer than this."""
    await asyncio.wait([call.ended], timeout=seconds)


async def _ended_or_referred(call: Call, seconds: float) -> None:
    """Wait for the end of a call, or for a transfer, but no longer than this."""
    referred = asyncio.create_task(call.referred.wait())
    either: set[asyncio.Future[Any]] = {call.ended, referred}
    await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    referred.cancel()
