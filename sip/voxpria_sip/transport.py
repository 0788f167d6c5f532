"""SIP's transports (RFC 3261 section 18): UDP datagrams, and messages framed on TCP and TLS."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Literal, Protocol, cast

import structlog

from voxpria_sip.message import MAX_HEAD_BYTES, Request, Response, parse, parse_head
from voxpria_sip.uri import MalformedError

Address = tuple[str, int]
TransportName = Literal["udp", "tcp", "tls"]

_CONNECT_SECONDS = 5
_IDLE_SECONDS = 600
_MESSAGE_SECONDS = 10
_MAX_CONNECTIONS = 256
_MAX_UNSENT_BYTES = 1 << 20
_KEEPALIVE = b"\r\n\r\n"

log = structlog.get_logger(__name__)


class Flow(Protocol):
    """A way to one peer."""

    transport: TransportName
    local: Address
    remote: Address

    @property
    def is_open(self) -> bool:
        """Whether what is sent can still arrive."""
        ...

    def send(self, data: bytes) -> None:
        """Send a message; what can't be sent is lost, as on the wire."""
        ...


Receiver = Callable[[Request | Response, Flow], None]


class Transports:
    """The sockets of one user agent on one address."""

    def __init__(self, address: str, receive: Receiver, lost: Callable[[Flow], None]) -> None:
        self._address, self._receive, self._lost = address, receive, lost
        self.ports: dict[TransportName, int] = {}
        """What is listened on."""
        self._udp: _Datagrams | None = None
        self._servers: list[asyncio.Server] = []
        self._streams: dict[tuple[TransportName, Address], _Stream] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen_udp(self, port: int = 0) -> None:
        """Bind UDP; raises OSError."""
        loop = asyncio.get_running_loop()
        _, self._udp = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._receive), local_addr=(self._address, port)
        )
        self.ports["udp"] = self._udp.local[1]

    async def listen_stream(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        """Listen on TCP, or on TLS with this context; raises OSError."""
        name: TransportName = "tls" if context else "tcp"

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._streams) >= _MAX_CONNECTIONS:
                writer.transport.abort()
                return
            await self._serve(_Stream(name, reader, writer))

        server = await asyncio.start_server(accepted, self._address, port, ssl=context, limit=MAX_HEAD_BYTES)
        self._servers.append(server)
        self.ports[name] = server.sockets[0].getsockname()[1]

    async def flow(self, transport: TransportName, remote: Address) -> Flow:
        """Return a way to this peer: the open connection, or a new one (not on TLS). Raises OSError."""
        if transport == "udp":
            if self._udp is None:
                raise OSError("UDP is not bound")
            return _UdpFlow(self._udp, remote)
        stream = self._streams.get((transport, remote))
        if stream is not None and stream.is_open:
            return stream
        if transport == "tls":
            raise OSError("the TLS connection is gone")
        return await self._connect(remote)

    async def _connect(self, remote: Address) -> "_Stream":
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(*remote, local_addr=(self._address, 0), limit=MAX_HEAD_BYTES)
        stream = _Stream("tcp", reader, writer)
        task = asyncio.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def _serve(self, stream: "_Stream") -> None:
        key = (stream.transport, stream.remote)
        self._streams[key] = stream
        try:
            await stream.read_messages(self._receive)
        except MalformedError as error:
            log.warning("connection closed: what came is not SIP", remote=stream.remote, problem=str(error))
        finally:
            stream.close()
            if self._streams.get(key) is stream:
                del self._streams[key]
            self._lost(stream)

    async def close(self) -> None:
        """Close all sockets at once."""
        for server in self._servers:
            server.close()
        for stream in [*self._streams.values()]:
            stream.close()
        for task in self._tasks:
            task.cancel()
        if self._udp is not None:
            self._udp.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receive: Receiver) -> None:
        self._receive = receive
        self.local: Address = ("", 0)
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is no subclass in 3.11
        self.local = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not data.strip(b"\r\n\0"):
            return
        try:
            message = parse(data)
        except MalformedError as error:
            log.warning("datagram dropped: not SIP", remote=addr, problem=str(error))
            return
        self._receive(message, _UdpFlow(self, addr[:2]))

    def send(self, data: bytes, remote: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, remote)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _UdpFlow:
    transport: TransportName = "udp"
    is_open = True

    def __init__(self, socket: _Datagrams, remote: Address) -> None:
        self._socket, self.remote = socket, remote
        self.local = socket.local

    def send(self, data: bytes) -> None:
        self._socket.send(data, self.remote)

    def towards(self, remote: Address) -> "_UdpFlow":
        """Return the flow from the same socket to another address."""
        return _UdpFlow(self._socket, remote)


class _Stream:
    def __init__(self, transport: TransportName, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.transport: TransportName = transport
        self._reader, self._writer = reader, writer
        self.local: Address = writer.get_extra_info("sockname")[:2]
        self.remote: Address = writer.get_extra_info("peername")[:2]

    @property
    def is_open(self) -> bool:
        return not self._writer.transport.is_closing()

    def send(self, data: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self.close()  # a peer that does not read is as good as gone
        if self.is_open:
            self._writer.write(data)

    def close(self) -> None:
        """Close after what is already written has gone out."""
        self._writer.close()

    async def read_messages(self, receive: Receiver) -> None:
        """Hand over every message until the connection ends; raise MalformedError (RFC 3261 section 18.3)."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, TimeoutError):
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    head = await self._head()
                if not head:
                    self.send(b"\r\n")  # RFC 5626 section 3.5.1
                    continue
                message = parse_head(head)
                if message.content_length is None:
                    raise MalformedError("a stream needs Content-Length")
                async with asyncio.timeout(_MESSAGE_SECONDS):
                    message.body = await self._reader.readexactly(message.content_length)
                receive(message, self)

    async def _head(self) -> bytes:
        try:
            head = await self._reader.readuntil(_KEEPALIVE)
        except asyncio.LimitOverrunError as error:
            raise MalformedError("the head is too long") from error
        return head.strip(b"\r\n")


def reply_flow(request: Request, flow: Flow) -> Flow:
    """Return where responses go (RFC 3261 section 18.2.2, RFC 3581): back to where the request came from.

    A UDP sender that did not ask for `rport` hears at its Via's port.
    """
    via = request.via
    if not isinstance(flow, _UdpFlow) or "rport" in via.params:
        return flow
    return flow.towards((flow.remote[0], via.port or 5060))
