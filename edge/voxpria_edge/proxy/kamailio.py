"""The way to Kamailio: evapi (questions, events, answers) and its JSON-RPC socket (acknowledgements, hanging up)."""

import asyncio
import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from voxpria_edge.proxy import messages
from voxpria_edge.proxy.messages import LONGEST_MESSAGE_BYTES

_log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 0.1
_RPC_SECONDS = 2.0
_NOT_FOUND = 404


@dataclass(frozen=True)
class Request:
    """A request as Kamailio's RPC takes it."""

    method: str
    uri: str
    next_hop: str
    headers: str


class Listener(Protocol):
    """Who hears Kamailio."""

    async def on_connected(self) -> None:
        """Hear that it is there (again); before its first message."""
        ...

    async def on_message(self, message: messages.Message) -> None:
        """Hear a message; awaited one by one, in order."""
        ...

    def on_gone(self) -> None:
        """Hear that it is gone."""
        ...


class Evapi:
    """A connection to Kamailio's evapi that comes back by itself."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_connected(self) -> bool:
        """Whether Kamailio is there."""
        return self._writer is not None

    def send(self, command: messages.Command) -> None:
        """Send a command, if Kamailio is there; if it is not, the call it is for is gone as well."""
        if self._writer is not None:
            self._writer.write(messages.encode(command))

    async def run(self, listener: Listener) -> None:
        """Connect, listen, connect again, until cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                await self._listen(listener)
            self._drop()
            listener.on_gone()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self, listener: Listener) -> None:
        async with asyncio.timeout(2):
            reader, self._writer = await asyncio.open_connection(self._address, self._port, limit=LONGEST_MESSAGE_BYTES)
        _log.info("connected to Kamailio")
        await listener.on_connected()
        connection = self._writer.get_extra_info("socket")
        while True:
            data = await _netstring(reader)
            # evapi leaves Nagle's algorithm on: it holds a question back until the one before is acknowledged (40 ms)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            await _take(data, listener)

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            _log.warning("Kamailio is gone")


async def _take(data: bytes, listener: Listener) -> None:
    try:
        message = messages.decode(data)
    except msgspec.DecodeError as error:
        _log.error("a message of Kamailio's is not understood", error=str(error))
        return
    try:
        await listener.on_message(message)
    except Exception:  # one message that breaks us must not cost the others
        call_id = messages.call_of(message)
        _log.exception("a message of Kamailio's could not be handled", kind=type(message).__name__, call_id=call_id)


async def _netstring(reader: asyncio.StreamReader) -> bytes:
    """Read one netstring; raise ValueError when what comes is none."""
    length = int((await reader.readuntil(b":"))[:-1])
    if not 0 <= length <= LONGEST_MESSAGE_BYTES:
        raise ValueError("netstring too long")
    return (await reader.readexactly(length + 1))[:-1]


class RpcError(Exception):
    """Kamailio did not do what it was asked to, or did not answer. `code` is its answer's, if there was one."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Rpc:
    """Kamailio's JSON-RPC over its unix datagram socket. One request at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._own_path = path.with_name(f"agent-{os.getpid()}.sock")
        self._lock = asyncio.Lock()
        self._count = 0

    async def call(self, method: str, *parameters: object) -> Any:  # noqa: ANN401  (JSON)
        """Call a method and return its result; raise RpcError."""
        async with self._lock:
            self._count += 1
            request = {"jsonrpc": "2.0", "method": method, "params": parameters, "id": self._count}
            try:
                answer = await asyncio.wait_for(self._exchange(json.dumps(request).encode()), _RPC_SECONDS)
            except (OSError, TimeoutError, ValueError) as error:
                raise RpcError(f"{method}: {type(error).__name__}") from error
        if "error" in answer:
            raise RpcError(f"{method}: {answer['error'].get('message')}", answer["error"].get("code"))
        return answer.get("result")

    async def _exchange(self, request: bytes) -> dict[str, Any]:
        """Send the request from a socket of our own, so that no late answer to another is taken for this one's."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            self._own_path.unlink(missing_ok=True)
            sock.bind(str(self._own_path))
            try:
                sock.connect(str(self._path))
                await loop.sock_sendall(sock, request)
                return dict(json.loads(await loop.sock_recv(sock, 1 << 20)))
            finally:
                self._own_path.unlink(missing_ok=True)

    async def acknowledge(self, message_id: str) -> None:
        """Have Kamailio forget a message that is on our disk; one that it has forgotten (a restart) is no error."""
        await self._forget("events", message_id)

    async def _forget(self, table: str, key: str) -> None:
        try:
            await self.call("htable.delete", table, key)
        except RpcError as error:
            if error.code != _NOT_FOUND:
                raise

    async def reply(self, index: int, label: int, code: int, reason: str) -> None:
        """Answer a transaction; what was forwarded of it is canceled."""
        await self.call("tm.reply", code, reason, f"{index}:{label}", "voxpria", ".", ".")

    async def send_request(self, request: Request) -> None:
        """Send a request of our own; its answers are of no interest."""
        await self.call("tm.t_uac_start", request.method, request.uri, request.next_hop, ".", request.headers)

    async def hang_up(self, sip_call_id: str) -> bool:
        """End the dialogs of a call: both sides of each get a BYE. False if Kamailio knows of none."""
        try:
            found = _listed(await self.call("dlg.list_match", "callid", "eq", sip_call_id))
        except RpcError as error:
            if error.code != _NOT_FOUND:
                raise
            return False
        for dialog in found:
            await self.call("dlg.end_dlg", dialog["h_entry"], dialog["h_id"])
        return bool(found)

    async def forget(self, record: str) -> None:
        """Let no more requests of a call pass."""
        for table in ("live", "trunks", "places"):
            await self._forget(table, record)

    async def refuse(self, sip_call_id: str, cseq: int, code: int, reason: str, record: str) -> None:
        """Answer the INVITE of a call that is being set up; what rings is canceled by that."""
        await self.call("tm.reply_callid", code, reason, sip_call_id, str(cseq), "", f"X-VoxPria-Call-Id: {record}\r\n")
        await self.forget(record)
        await self._forget("secure", sip_call_id)


def _listed(result: object) -> list[dict[str, Any]]:
    """Return the dialogs that were listed; of none, Kamailio's answer is an empty object."""
    found = result if isinstance(result, list) else [result]
    return [dialog for dialog in found if isinstance(dialog, dict) and "h_entry" in dialog]
