"""Asks a SIP server how it is: OPTIONS (RFC 3261 section 11) over UDP, TCP or TLS, with digest, within a deadline."""

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, cast

import msgspec
from voxpria_routing import challenges
from voxpria_routing.hosts import bracketed, has_service, host_port
from voxpria_routing.locate import Address, Place, ResolutionError, locate
from voxpria_routing.tls import CIPHERS

from voxpria_server.webhooks.guard import ForbiddenAddressError, is_forbidden

DEADLINE_SECONDS = 3.0
_MAX_MESSAGE_BYTES = 16384
_MAX_ADDRESSES = 4
_NEXT_SECONDS = 0.7
"""How long one of several addresses may be silent over UDP before the next is asked."""
_RESEND_SECONDS = (0.5, 1.0, 2.0)
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6]\d\d) ?([^\r\n]{0,100})")
_CHALLENGES = {401: ("www-authenticate", "Authorization"), 407: ("proxy-authenticate", "Proxy-Authorization")}
_FORBIDDEN = 403
_FINAL = 200


@dataclass(frozen=True)
class Server:
    """A SIP server, and how to get there."""

    host: str
    port: int
    transport: Literal["udp", "tcp", "tls"]
    next_hop: tuple[str, int] | None = None
    is_tls_verified: bool = True
    authority: str | None = None
    """A file with the authority to trust instead of the system's."""
    may_be_private: bool = False
    """Whether an address inside may be gone to. `next_hop`, which no customer chooses, always may."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Verdict:
    """How a server was found."""

    status: Literal["reachable", "unreachable", "auth_failed"]
    detail: str
    latency_ms: float | None = None
    """From the question to its first answer."""


@dataclass(frozen=True)
class Response:
    """A final SIP response, as far as it matters here."""

    code: int
    reason: str
    headers: dict[str, list[str]]
    body: str = ""


@dataclass(frozen=True)
class Answers:
    """What a server answered to OPTIONS: at first, and at last, when it had been shown credentials if it wanted any."""

    first: Response
    last: Response
    latency_ms: float
    """From the question to its first answer."""
    algorithm: str | None = None
    """The hash of the digest that was sent; None if none was."""

    @property
    def is_challenged(self) -> bool:
        """True if the server wanted credentials."""
        return self.first.code in _CHALLENGES

    @property
    def is_refused(self) -> bool:
        """True if the server does not take what it was shown."""
        return self.last.code in _CHALLENGES or self.last.code == _FORBIDDEN


class MalformedError(Exception):
    """What came is no SIP response."""


async def ask_options(server: Server, deadline_seconds: float = DEADLINE_SECONDS) -> Verdict:
    """Send OPTIONS and judge the answer. Never raises for what the other side does or fails to do."""
    try:
        async with asyncio.timeout(deadline_seconds):
            return _judge(server, await converse(server))
    except TimeoutError:
        return Verdict("unreachable", f"no answer within {deadline_seconds:g} s")
    except (OSError, MalformedError) as error:
        return Verdict("unreachable", explain(error))


async def connect_only(server: Server, deadline_seconds: float = DEADLINE_SECONDS) -> Verdict:
    """Open a connection, with its TLS handshake, and close it: for servers known not to answer OPTIONS.

    Over UDP nothing shows without asking, so there the server is asked all the same.
    """
    if server.transport == "udp":
        return await ask_options(server, deadline_seconds)
    started_at = time.perf_counter()
    try:
        async with asyncio.timeout(deadline_seconds):
            _, writer = await connect(server, _tls_context(server))
        writer.transport.abort()
    except TimeoutError:
        return Verdict("unreachable", f"no connection within {deadline_seconds:g} s")
    except OSError as error:
        return Verdict("unreachable", explain(error))
    return Verdict("reachable", "takes connections; its credentials show at the first call", _since(started_at))


async def place_of(server: Server) -> Place:
    """Return where to connect to, as calls do, in order of preference, at most 4 addresses.

    Raises ResolutionError; ForbiddenAddressError if all of them are inside, which a customer's trunk must not be able
    to probe.
    """
    if server.next_hop is not None:
        return Place(addresses=[server.next_hop])
    found = await locate(server.host, server.port, server.transport)
    allowed = [pair for pair in found.addresses if server.may_be_private or not is_forbidden(pair[0])]
    if not allowed:
        raise ForbiddenAddressError("its address is private, local or reserved, and may not be gone to from here")
    return msgspec.structs.replace(found, addresses=allowed[:_MAX_ADDRESSES])


async def connect(server: Server, context: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first of the server's addresses that takes it; raise OSError as the last of them gave it."""
    *others, last = (await place_of(server)).addresses
    for address in others:
        with suppress(OSError):
            return await _open(server, address, context)
    return await _open(server, last, context)


async def _open(
    server: Server, address: tuple[str, int], context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        *address, ssl=context, server_hostname=server.host if context else None, limit=_MAX_MESSAGE_BYTES
    )


async def converse(server: Server) -> Answers:
    """Send OPTIONS, and once more with credentials if the server wants them and there are any.

    Waits as long as it takes: give it a deadline. Raises OSError or MalformedError.
    """
    if server.transport != "udp":
        async with _connection(server) as exchange:
            return await _talk(server, exchange)
    *others, last = (await place_of(server)).addresses
    for address in others:
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_NEXT_SECONDS), _datagrams(address) as exchange:
                return await _talk(server, exchange)
    async with _datagrams(last) as exchange:
        return await _talk(server, exchange)


async def _talk(server: Server, exchange: "_Exchange") -> Answers:
    started_at = time.perf_counter()
    dialogue = _Options(server, exchange.source)
    first = await exchange.ask(dialogue.request())
    latency_ms = _since(started_at)
    challenge = _challenge(first)
    if challenge is None or server.username is None or server.password is None:
        return Answers(first, first, latency_ms)
    header, parsed = challenge
    value = challenges.answer(parsed, "OPTIONS", dialogue.uri, server.username, server.password)
    last = await exchange.ask(dialogue.request(f"{header}: {value}"))
    return Answers(first, last, latency_ms, parsed.algorithm)


def _judge(server: Server, answers: Answers) -> Verdict:
    said = f"answered {answers.last.code} {answers.last.reason}".rstrip()
    if answers.is_refused:
        whom = "these credentials" if server.username else "a request without credentials"
        return Verdict("auth_failed", f"{said} to {whom}", answers.latency_ms)
    return Verdict("reachable", said, answers.latency_ms)


def _challenge(response: Response) -> tuple[str, challenges.Challenge] | None:
    """Return the best challenge of a response, and the header that takes its answer."""
    if response.code not in _CHALLENGES:
        return None
    asked, answered = _CHALLENGES[response.code]
    found = challenges.best(response.headers.get(asked, []))
    return None if found is None else (answered, found)


class _Options:
    """The requests of one OPTIONS: same Call-ID and tag, rising CSeq."""

    def __init__(self, server: Server, source: tuple[str, int]) -> None:
        self._transport, self._source = server.transport, source
        is_sought = server.next_hop is None and has_service(server.host, server.port, server.transport)
        self.uri = f"sip:{bracketed(server.host) if is_sought else host_port(server.host, server.port)}" + (
            "" if server.transport == "udp" else f";transport={server.transport}"
        )
        self._call_id, self._tag, self._cseq = os.urandom(12).hex(), os.urandom(6).hex(), 0

    def request(self, authorization: str | None = None) -> bytes:
        self._cseq += 1
        address = bracketed(self._source[0])
        branch = f"z9hG4bK{os.urandom(10).hex()}"
        lines = [
            f"OPTIONS {self.uri} SIP/2.0",
            f"Via: SIP/2.0/{self._transport.upper()} {address}:{self._source[1]};branch={branch};rport",
            "Max-Forwards: 70",
            f"From: <sip:voxpria@{address}>;tag={self._tag}",
            f"To: <{self.uri}>",
            f"Call-ID: {self._call_id}",
            f"CSeq: {self._cseq} OPTIONS",
            f"Contact: <sip:voxpria@{address}:{self._source[1]}>",
            "Accept: application/sdp",
            "User-Agent: VoxPria",
            *([authorization] if authorization else []),
            "Content-Length: 0",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_response(data: bytes) -> Response:
    """Return the response in `data`; raise MalformedError."""
    start, _, body = data.partition(b"\r\n\r\n")
    head = start.decode("utf-8", "replace")
    first, *lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise MalformedError("what came back is not SIP")
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers.setdefault(name.strip().lower(), []).append(value.strip())
    return Response(int(status[1]), status[2], headers, body.decode("utf-8", "replace"))


class _Exchange(Protocol):
    """Sends a request and waits for its final response."""

    source: tuple[str, int]

    async def ask(self, request: bytes) -> Response: ...


@asynccontextmanager
async def _datagrams(address: Address) -> AsyncIterator[_Exchange]:
    transport, datagrams = await asyncio.get_running_loop().create_datagram_endpoint(_Datagrams, remote_addr=address)
    try:
        yield datagrams
    finally:
        transport.close()


@asynccontextmanager
async def _connection(server: Server) -> AsyncIterator[_Exchange]:
    reader, writer = await connect(server, _tls_context(server))
    try:
        yield _Stream(reader, writer)
    finally:
        writer.transport.abort()


def _tls_context(server: Server) -> ssl.SSLContext | None:
    if server.transport != "tls":
        return None
    return tls_context(is_verified=server.is_tls_verified, authority=server.authority)


def tls_context(*, is_verified: bool, authority: str | None = None) -> ssl.SSLContext:
    """Return the context of a TLS client."""
    context = ssl.create_default_context(cafile=authority)
    context.set_ciphers(CIPHERS)
    if not is_verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _Datagrams(asyncio.DatagramProtocol):
    """UDP: sends again until something comes (RFC 3261 section 17.1.2)."""

    def __init__(self) -> None:
        self.source = ("0.0.0.0", 0)  # noqa: S104  (until the socket is there)
        self._transport: asyncio.DatagramTransport | None = None
        self._received: asyncio.Queue[bytes | Exception] = asyncio.Queue(maxsize=16)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.source = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: object) -> None:
        with suppress(asyncio.QueueFull):
            self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        with suppress(asyncio.QueueFull):
            self._received.put_nowait(exc)

    async def ask(self, request: bytes) -> Response:
        assert self._transport is not None
        for pause in _RESEND_SECONDS:
            self._transport.sendto(request)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    return await self._final_response()
        return await self._final_response()

    async def _final_response(self) -> Response:
        while True:
            received = await self._received.get()
            if isinstance(received, Exception):
                raise received
            response = parse_response(received)
            if response.code >= _FINAL:
                return response


class _Stream:
    """TCP and TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.source = writer.get_extra_info("sockname")[:2]

    async def ask(self, request: bytes) -> Response:
        self._writer.write(request)
        await self._writer.drain()
        while True:
            response = await self._response()
            if response.code >= _FINAL:
                return response

    async def _response(self) -> Response:
        try:
            response = parse_response(await self._reader.readuntil(b"\r\n\r\n"))
            length = (response.headers.get("content-length") or response.headers.get("l") or ["0"])[0]
            body = await self._reader.readexactly(min(int(length), _MAX_MESSAGE_BYTES))
            response = replace(response, body=body.decode("utf-8", "replace"))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise MalformedError("the connection ended before an answer") from error
        return response


def _since(started_at: float) -> float:
    return round((time.perf_counter() - started_at) * 1000, 1)


def explain(error: Exception) -> str:
    """Say in a few words why a server could not be asked."""
    match error:
        case ForbiddenAddressError() | ResolutionError():
            return str(error).rstrip(".")
        case ssl.SSLCertVerificationError():
            return f"its TLS certificate does not hold: {error.verify_message}"
        case ssl.SSLError():
            return "TLS failed: it may not speak TLS on this port"
        case ConnectionRefusedError():
            return "nothing listens there (connection refused)"
        case OSError():
            return f"can't be reached: {error.strerror or type(error).__name__}"
        case _:
            return str(error)
