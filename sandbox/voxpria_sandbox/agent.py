"""The SIP agent: stands for every provider's SIP server, asks for digest, answers, speaks and listens."""

import asyncio
import contextlib
import datetime as dt
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import structlog
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import METHODS, Endpoint, new_tag, respond
from voxpria_sip.message import Request
from voxpria_sip.transaction import LIFETIME_SECONDS, ServerTransaction, TransactionError
from voxpria_sip.uri import Address, MalformedError, Uri

from voxpria_sandbox.accounts import OPENAI_HOST, Accounts, main_host
from voxpria_sandbox.behaviours import Behaviour, converse, plan_of
from voxpria_sandbox.call import Call
from voxpria_sandbox.media.pacer import Pacer
from voxpria_sandbox.media.speech import MAX_CHARACTERS, Speech, SpeechError
from voxpria_sandbox.media.stream import MediaStream
from voxpria_sandbox.openai import OpenAI, RingingCall
from voxpria_sandbox.settings import SOFTWARE
from voxpria_sandbox.sip import sdp
from voxpria_sandbox.sip.digest import Gatekeeper

_MAX_CALLS = 64
_KEPT = 100
_RING_SECONDS = 0.2
_UNTOLD_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Turn:
    """Something that was said in a call."""

    role: Literal["agent", "user"]
    text: str
    at_unix: float


@dataclass
class AgentCall:
    """What the agent knows of one call; the conversation that a behaviour leads."""

    sip_call_id: str
    call_id: str | None
    """The edge's id of the call (X-VoxPria-Call-Id)."""
    agent_id: str | None
    number: str
    caller: str
    language: str | None
    first_message: str | None
    speech: Speech = field(repr=False)
    started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    said: list[str] = field(default_factory=list)
    host: str = ""
    """The main host of whoever's SIP server the agent stands for in this call."""
    conversation_id: str = field(default_factory=lambda: f"conv_{secrets.token_hex(13)}")
    callers_words: str | None = None
    """What the caller says, as far as somebody told us: the sandbox recognises no speech."""
    spoken: list[Turn] = field(default_factory=list)
    status: str = "ringing"
    call: Call | None = field(default=None, repr=False)
    openai_call: RingingCall | None = field(default=None, repr=False)
    has_hung_up: bool = False
    """Whether the agent itself ended the call."""

    async def say(self, text: str) -> None:
        """Speak, and return when it has been said; a failure of the speech is silence, and logged."""
        assert self.call is not None
        try:
            samples = await self.speech.say(text, self.language)
        except SpeechError as error:
            log.warning("the agent has no voice", problem=str(error))
            return
        self.said.append(text)
        self.spoken.append(Turn("agent", text, time.time()))
        if self.openai_call is not None:
            item_id = f"item_{secrets.token_hex(10)}"
            self.openai_call.tell("response.output_audio_transcript.delta", item_id=item_id, delta=text)
            self.openai_call.tell("response.output_audio_transcript.done", item_id=item_id, transcript=text)
        await self.call.media.play(samples)

    async def hear(self, words: str, spoken: "asyncio.Future[None]") -> None:
        """Know what the caller says, from whoever made it speak; `spoken` is done when it has."""
        self.callers_words = words
        if self.openai_call is None or not words:
            return
        item_id = f"item_{secrets.token_hex(10)}"
        self.openai_call.tell("input_audio_buffer.speech_started", item_id=item_id, audio_start_ms=0)
        await asyncio.shield(spoken)
        if self.openai_call.is_transcribed and self.call is not None and self.call.media.first_heard_at is not None:
            self.openai_call.tell(
                "conversation.item.input_audio_transcription.completed",
                item_id=item_id,
                content_index=0,
                transcript=words,
            )

    async def next_digit(self, seconds: float) -> str | None:
        """Return the next key that the caller presses; None if none is in time."""
        assert self.call is not None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.call.media.digits.get(), seconds)
        return None

    async def transfer(self, target: str) -> int:
        """Ask the caller to call a number or a URI instead; return the final code of its answer."""
        assert self.call is not None
        return await self.call.refer(target)

    def echo(self) -> None:
        """Send back whatever is heard from now on."""
        assert self.call is not None
        self.call.media.is_echo = True

    def unmute(self) -> None:
        """Begin to send audio."""
        assert self.call is not None
        self.call.media.is_muted = False

    async def hang_up(self) -> None:
        """Send BYE, if the call is still there."""
        if self.call is not None and not self.call.ended.done():
            self.has_hung_up = True
            await self.call.hang_up()

    @property
    def answered_unix(self) -> float:
        """When the agent answered; 0 if it did not."""
        return _unix(self.call.answered_at) if self.call else 0.0

    @property
    def duration_seconds(self) -> float:
        """How long the call has lasted."""
        if self.call is None:
            return 0.0
        end = self.call.ended.result().at if self.call.ended.done() else time.monotonic()
        return end - self.call.answered_at

    def turns(self) -> list[Turn]:
        """Return what was said by both sides, in order."""
        heard_at = self.call.media.first_heard_at if self.call else None
        turns = [*self.spoken]
        if self.callers_words and heard_at is not None:
            turns.append(Turn("user", self.callers_words, _unix(heard_at)))
        return sorted(turns, key=lambda turn: turn.at_unix)

    def report(self) -> dict[str, Any]:
        """Return what `GET /agent/calls` shows."""
        media = self.call.media if self.call else None
        return {
            "call_id": self.call_id,
            "sip_call_id": self.sip_call_id,
            "agent_id": self.agent_id,
            "to": self.number,
            "from": self.caller,
            "language": self.language,
            "status": self.status,
            "started_at": self.started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "said": list(self.said),
            "heard_speech_seconds": media.heard_speech_seconds if media else 0.0,
            "packets_sent": media.packets_sent if media else 0,
            "packets_received": media.packets_received if media else 0,
            "ended_by": self._ended_by(),
        }

    def _ended_by(self) -> str | None:
        if self.call is None or not self.call.ended.done():
            return None
        return "agent" if self.call.ended.result().by == "us" else "caller"


class SipAgent:
    """Takes calls on its endpoint, at most 64 at once."""

    def __init__(
        self,
        address: str,
        accounts: Accounts,
        speech: Speech,
        pacer: Pacer,
        openai: OpenAI,
        behaviour: Behaviour = converse,
        ring_seconds: float = _RING_SECONDS,
    ) -> None:
        self._accounts, self._speech, self._pacer = accounts, speech, pacer
        self._behaviour, self._ring_seconds = behaviour, ring_seconds
        self._openai = openai
        self._gatekeeper = Gatekeeper()
        self._calls: deque[AgentCall] = deque(maxlen=_KEPT)
        self._live: dict[int, AgentCall] = {}
        self.endpoint = Endpoint(address, {"INVITE": self._on_invite, "OPTIONS": self._on_options}, SOFTWARE)

    def calls(self) -> list[AgentCall]:
        """Return the last calls, newest first."""
        return list(reversed(self._calls))

    def find(self, sip_call_id: str, call_id: str | None) -> AgentCall | None:
        """Return the call with this SIP Call-ID or, where the edge changes that, with this id of the edge's."""
        return next(
            (c for c in reversed(self._calls) if c.sip_call_id == sip_call_id or (call_id and c.call_id == call_id)),
            None,
        )

    async def close(self) -> None:
        """Hang up every call."""
        await asyncio.gather(*(call.hang_up() for call in [*self._live.values()]))

    async def _on_options(self, transaction: ServerTransaction) -> None:
        if self._admits(transaction):
            headers = [("Allow", METHODS), ("Accept", "application/sdp")]
            # what we could talk about, at port 0: no session yet (RFC 3264 section 9)
            respond(transaction, 200, "OK", headers, body=sdp.Session(self.endpoint.address, 0).offer())

    async def _on_invite(self, transaction: ServerTransaction) -> None:
        if not self._admits(transaction):
            return
        if len(self._live) >= _MAX_CALLS:
            respond(transaction, 486, "Busy Here: the sandbox takes no more calls")
            return
        try:
            offered = sdp.parse(transaction.request.body) if transaction.request.body else None
        except sdp.UnacceptableError as error:
            respond(transaction, 488, f"Not Acceptable Here: {error}")
            return
        record = self._open(transaction.request)
        self._calls.append(record)
        self._live[id(record)] = record
        try:
            await self._take(record, transaction, offered)
        finally:
            del self._live[id(record)]

    def _admits(self, transaction: ServerTransaction) -> bool:
        """Whether the caller may call the host and user it asks for; if not, it has been told."""
        request = transaction.request
        uri = Uri.parse(request.uri)
        host = main_host(uri.host)
        access = self._accounts.access(host, uri.user)
        if access is None:
            respond(transaction, 404, "Not Found: no such number here")
            return False
        if access.is_open:
            return True
        header = request.headers.get("Authorization")
        verdict = self._gatekeeper.judge(header, request.method, host, access.users)
        if verdict in ("absent", "stale"):
            challenges = self._gatekeeper.challenges(host, is_stale=verdict == "stale")
            respond(transaction, 401, "Unauthorized", [("WWW-Authenticate", text) for text in challenges])
        elif verdict == "wrong":
            respond(transaction, 403, "Forbidden: wrong credentials")
        return verdict == "granted"

    def _open(self, request: Request) -> AgentCall:
        headers = request.headers
        message = headers.get("X-VoxPria-First-Message")
        return AgentCall(
            sip_call_id=request.call_id,
            call_id=headers.get("X-VoxPria-Call-Id"),
            agent_id=headers.get("X-VoxPria-Agent-Id"),
            number=Uri.parse(request.uri).user or "",
            host=main_host(Uri.parse(request.uri).host),
            caller=_user(request.sender),
            language=headers.get("X-VoxPria-Language"),
            first_message=unquote(message, errors="replace")[:MAX_CHARACTERS] if message else None,
            speech=self._speech,
        )

    async def _take(self, record: AgentCall, transaction: ServerTransaction, offered: sdp.Audio | None) -> None:
        tag, plan = new_tag(), plan_of(record.number)
        if plan.refusal is not None:
            record.status = "refused"
            code, reason = plan.refusal
            respond(transaction, code, reason, tag=tag)
            return
        contact = self.endpoint.contact(transaction.flow.transport)
        routes = [("Record-Route", route) for route in transaction.request.headers.lines("Record-Route")]
        dialog = Dialog.of_called(transaction.request, tag)
        respond(transaction, 180, "Ringing", [*routes, ("Contact", contact)], tag=tag)
        ring_seconds = self._ring_seconds if plan.ring_seconds is None else plan.ring_seconds
        refusal = await self._ring(record, transaction, ring_seconds)
        if transaction.canceled.is_set():
            record.status = "canceled"
            respond(transaction, 487, "Request Terminated", tag=tag)
            return
        if refusal is not None:
            record.status = "refused"
            respond(transaction, refusal, "Refused by the called side", tag=tag)
            return
        media = MediaStream(self.endpoint.address, self._pacer)
        media.is_muted = plan.is_muted
        await media.open()
        session = sdp.Session(self.endpoint.address, media.port)
        record.call = Call(self.endpoint, dialog, transaction.flow, media, session)
        record.status = "in-progress"
        record.call.accept(transaction, offered)
        await self._lead(record, transaction, plan.lead or self._behaviour)
        record.status = "completed"

    async def _ring(self, record: AgentCall, transaction: ServerTransaction, seconds: float) -> int | None:
        """Ring for so long, or until an OpenAI project decides; return the status to refuse with, if it does."""
        uri = Uri.parse(transaction.request.uri)
        if record.host != OPENAI_HOST or uri.user is None:
            await _is_canceled(transaction, seconds)
            return None
        ringing = asyncio.create_task(self._openai.ring(uri.user, transaction.request))
        canceled = asyncio.create_task(transaction.canceled.wait())
        await asyncio.wait([ringing, canceled], return_when=asyncio.FIRST_COMPLETED)
        canceled.cancel()
        if not ringing.done():
            ringing.cancel()
            return None
        record.openai_call, refusal = ringing.result()
        return refusal

    async def _lead(self, record: AgentCall, transaction: ServerTransaction, lead: Behaviour) -> None:
        """Let the behaviour lead the call until it ends; a call that is never acknowledged is ended."""
        assert record.call is not None
        behaviour = asyncio.create_task(self._behave(record, lead))
        told = asyncio.create_task(_do_as_told(record, transaction))
        try:
            if not await _is_set(transaction.acknowledged, LIFETIME_SECONDS, record.call):
                await record.hang_up()
            await asyncio.shield(record.call.ended)
        finally:
            behaviour.cancel()
            told.cancel()
            if record.openai_call is not None:
                record.openai_call.end()

    async def _behave(self, record: AgentCall, lead: Behaviour) -> None:
        try:
            if record.openai_call is not None and record.call is not None:  # OpenAI's speaks once it is told to
                await _is_set(record.openai_call.greeted, _UNTOLD_SECONDS, record.call)
            await lead(record)
        except Exception:
            log.exception("a behaviour failed")
        await record.hang_up()


async def _do_as_told(record: AgentCall, transaction: ServerTransaction) -> None:
    """Refer the caller, and hang up, as OpenAI's API is told; once the call is acknowledged (RFC 3261 section 15)."""
    if record.openai_call is None:
        return
    await transaction.acknowledged.wait()
    while (target := await record.openai_call.told.get()) is not None:
        try:
            log.info("a call was referred", code=await record.transfer(target))
        except (OSError, TransactionError, MalformedError, TimeoutError) as error:
            log.warning("a call could not be referred", problem=str(error))
    await record.hang_up()


async def _is_canceled(transaction: ServerTransaction, seconds: float) -> bool:
    """Wait until the call is to be answered; return whether a CANCEL came first."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await transaction.canceled.wait()
    return transaction.canceled.is_set()


async def _is_set(event: asyncio.Event, seconds: float, call: Call) -> bool:
    """Wait for an event of a call; return whether it came, or the call ended first."""
    waiting: asyncio.Future[bool] = asyncio.create_task(event.wait())
    call.ended.add_done_callback(lambda _: waiting.cancel())
    await asyncio.wait([waiting], timeout=seconds)
    waiting.cancel()
    return event.is_set() or call.ended.done()


def _unix(monotonic: float) -> float:
    return time.time() - (time.monotonic() - monotonic)


def _user(address: Address) -> str:
    try:
        return Uri.parse(address.uri).user or address.uri
    except MalformedError:
        return address.uri
