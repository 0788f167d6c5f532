"""Transactions (RFC 3261 section 17, RFC 6026): a request, its responses, and what is sent again until heard."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import structlog

from voxpria_sip.message import Headers, Request, Response
from voxpria_sip.transport import Flow, reply_flow
from voxpria_sip.uri import Via

T1_SECONDS = 0.5
T2_SECONDS = 4.0
LIFETIME_SECONDS = 64 * T1_SECONDS
_MAX_TRANSACTIONS = 4096
_MAX_PROVISIONAL = 32

log = structlog.get_logger(__name__)


class TransactionError(Exception):
    """No final response came: the peer is silent, or the connection is lost."""


class Core(Protocol):
    """What sits above: gets every new request once."""

    def on_request(self, transaction: "ServerTransaction") -> None:
        """Take a request other than ACK and CANCEL."""
        ...

    def on_ack(self, request: Request) -> None:
        """Take the ACK of a 2xx."""
        ...


class ClientTransaction:
    """A request of ours. An INVITE's failure is acknowledged here, its 2xx by whoever asked (see `resend_ack`)."""

    def __init__(self, request: Request, flow: Flow, ended: Callable[[], None]) -> None:
        self.request, self.flow, self._ended = request, flow, ended
        self.resend_ack: Callable[[], None] | None = None
        """Called for each repeated 2xx."""
        self._responses: asyncio.Queue[Response | None] = asyncio.Queue(_MAX_PROVISIONAL + 2)
        self.heard = asyncio.Event()
        """Set by the first response."""
        self.is_final = False
        self._sender = asyncio.create_task(self._send_until_heard())

    async def responses(self) -> AsyncIterator[Response]:
        """Yield each response, the final one last; raise TransactionError."""
        while True:
            response = await self._responses.get()
            if response is None:
                raise TransactionError("no answer")
            yield response
            if response.is_final:
                return

    async def final(self) -> Response:
        """Return the final response; raise TransactionError."""
        async for response in self.responses():
            if response.is_final:
                return response
        raise TransactionError("no answer")

    def receive(self, response: Response) -> None:
        """Take a response off the wire."""
        is_failed_invite = self.request.method == "INVITE" and response.is_final and not response.is_success
        if is_failed_invite:
            self.flow.send(bytes(_ack_of_failure(self.request, response)))
        if self.is_final:
            if response.is_success and self.resend_ack:
                self.resend_ack()
            return
        self.heard.set()
        self.is_final = response.is_final
        if self.request.method == "INVITE" or self.is_final:
            self._sender.cancel()
        if self.is_final or self._responses.qsize() < _MAX_PROVISIONAL:
            self._responses.put_nowait(response)
        if self.is_final:
            self._ended()

    def fail(self) -> None:
        """End without answer."""
        self._sender.cancel()
        if not self.is_final:
            self.is_final = True
            self._responses.put_nowait(None)
            self._ended()

    async def _send_until_heard(self) -> None:
        data = bytes(self.request)
        self.flow.send(data)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIFETIME_SECONDS):
                await self._repeat(data)
        self.fail()

    async def _repeat(self, data: bytes) -> None:
        pause = T1_SECONDS
        while True:
            await asyncio.sleep(pause)
            if self.flow.transport == "udp":
                self.flow.send(data)
            is_slow = self.request.method != "INVITE"
            pause = min(2 * pause, T2_SECONDS) if is_slow else 2 * pause
            if is_slow and self.heard.is_set():
                pause = T2_SECONDS


class ServerTransaction:
    """A request of the peer's, and our responses to it."""

    def __init__(self, request: Request, flow: Flow, ended: Callable[[], None]) -> None:
        self.request, self._ended = request, ended
        self.flow = reply_flow(request, flow)
        self.source = flow.remote
        self.canceled = asyncio.Event()
        """Set by a CANCEL that came in time."""
        self.acknowledged = asyncio.Event()
        """Set by the ACK of an INVITE's final response."""
        self.on_unacknowledged: Callable[[], None] = lambda: None
        """Called where that does not come in time (RFC 3261 section 13.3.1.4)."""
        self._last: bytes | None = None
        self._sender: asyncio.Task[None] | None = None
        self.is_final = False
        self.software = ""
        """What our responses say in Server."""

    def respond(self, response: Response) -> None:
        """Send a response; nothing after the final one. An INVITE's final response is repeated until its ACK."""
        if self.is_final:
            return
        self._last = bytes(response)
        self.is_final = response.is_final
        if self.is_final:
            self._ended()
        self.flow.send(self._last)
        if self.is_final and self.request.method == "INVITE" and (response.is_success or self.flow.transport == "udp"):
            self._sender = asyncio.create_task(self._send_until_acknowledged(self._last))

    def repeat(self) -> None:
        """Answer a repeated request as before."""
        if self._last is not None:
            self.flow.send(self._last)

    async def _send_until_acknowledged(self, data: bytes) -> None:
        pause = T1_SECONDS
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIFETIME_SECONDS):
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self.acknowledged.wait()
                            return
                    self.flow.send(data)
                    pause = min(2 * pause, T2_SECONDS)
        self.on_unacknowledged()

    def stop(self) -> None:
        """Send nothing more."""
        if self._sender is not None:
            self._sender.cancel()


class Transactions:
    """All transactions of one user agent, by their RFC 3261 section 17.1.3 and 17.2.3 keys."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._clients: dict[tuple[str, str], ClientTransaction] = {}
        self._servers: dict[tuple[str, str, str], ServerTransaction] = {}

    def send(self, request: Request, flow: Flow) -> ClientTransaction:
        """Send a request that has its Via."""
        key = (request.via.params.get("branch") or "", request.method)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.call_later(LIFETIME_SECONDS, self._clients.pop, key, None)

        self._clients[key] = ClientTransaction(request, flow, ended)
        return self._clients[key]

    def receive(self, message: Request | Response, flow: Flow) -> None:
        """Take any message off the wire."""
        if isinstance(message, Response):
            key = (message.via.params.get("branch") or "", message.cseq[1])
            if (transaction := self._clients.get(key)) is not None:
                transaction.receive(message)
        else:
            self._receive_request(message, flow)

    def _receive_request(self, request: Request, flow: Flow) -> None:
        key = _server_key(request, request.method)
        known = self._servers.get(key)
        if request.method == "ACK":
            self._receive_ack(request)
        elif known is not None:
            known.repeat()
        elif len(self._servers) >= _MAX_TRANSACTIONS:
            log.warning("request dropped: too many transactions", remote=flow.remote)
        else:
            self._open(request, flow, key)

    def _receive_ack(self, request: Request) -> None:
        invite = self._servers.get(_server_key(request, "INVITE"))
        if invite is None:
            self._core.on_ack(request)
        else:
            invite.acknowledged.set()

    def _open(self, request: Request, flow: Flow, key: tuple[str, str, str]) -> None:
        _note_source(request, flow)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.call_later(LIFETIME_SECONDS + T1_SECONDS, self._forget_server, key)  # its ACK is late by then

        transaction = self._servers[key] = ServerTransaction(request, flow, ended)
        if request.method == "CANCEL":
            self._cancel(transaction)
        else:
            self._core.on_request(transaction)

    def _forget_server(self, key: tuple[str, str, str]) -> None:
        self._servers.pop(key).stop()

    def _cancel(self, transaction: ServerTransaction) -> None:
        invite = self._servers.get(_server_key(transaction.request, "INVITE"))
        status, reason = (200, "OK") if invite else (481, "Call/Transaction Does Not Exist")
        transaction.respond(response_to(transaction.request, status, reason))
        if invite is not None and not invite.is_final:
            invite.canceled.set()

    def lost(self, flow: Flow) -> None:
        """Fail what waits on a connection that is gone."""
        for transaction in self._clients.values():
            if transaction.flow is flow:
                transaction.fail()

    def close(self) -> None:
        """Send nothing more."""
        for client in self._clients.values():
            client.fail()
        for server in self._servers.values():
            server.stop()


def response_to(request: Request, status: int, reason: str, tag: str | None = None) -> Response:
    """Return a response with what it takes from the request (RFC 3261 sections 8.2.6, 12.1.1)."""
    headers = Headers([(name, value) for name in ("Via", "From") for value in request.headers.lines(name)])
    to = request.headers.get("To") or ""
    headers.add("To", f"{to};tag={tag}" if tag and request.recipient.tag is None else to)
    headers.add("Call-ID", request.call_id)
    headers.add("CSeq", request.headers.get("CSeq") or "")
    return Response(headers, status=status, reason=reason)


def cancel_of(invite: Request) -> Request:
    """Return the CANCEL of an INVITE (RFC 3261 section 9.1)."""
    return _hop_request(invite, "CANCEL", invite.headers.get("To") or "")


def _ack_of_failure(invite: Request, response: Response) -> Request:
    """Return the ACK of a non-2xx (RFC 3261 section 17.1.1.3)."""
    return _hop_request(invite, "ACK", response.headers.get("To") or "")


def _hop_request(invite: Request, method: str, to: str) -> Request:
    headers = Headers([("Via", str(invite.via)), ("Max-Forwards", "70")])
    for name in ("Route", "From", "Call-ID"):
        for value in invite.headers.lines(name):
            headers.add(name, value)
    headers.add("To", to)
    headers.add("CSeq", f"{invite.cseq[0]} {method}")
    return Request(headers, method=method, uri=invite.uri)


def _server_key(request: Request, method: str) -> tuple[str, str, str]:
    via = request.via
    return via.params.get("branch") or "", f"{via.host}:{via.port}", method


def _note_source(request: Request, flow: Flow) -> None:
    """Write where the request really came from into its Via (RFC 3261 section 18.2.1, RFC 3581 section 4)."""
    via, params = request.via, dict(request.via.params)
    params["received"] = flow.remote[0]
    if "rport" in params:
        params["rport"] = str(flow.remote[1])
    request.headers.replace_first("Via", str(Via(via.transport, via.host, via.port, params)))
