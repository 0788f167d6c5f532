"""The way to the control plane's edge API (`voxpria_routing.edge_api` describes it)."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
from voxpria_routing.edge_api import Command, Commands, CommandsWanted, OpenCalls, Status, Strangers, TrunkNews
from voxpria_routing.events import Batch, BatchResult
from voxpria_routing.snapshot import Delta, Reader, Snapshot
from voxpria_routing.trace import Trace

from voxpria_edge.tracing import Traces

_WAIT_SECONDS = 20
_SNAPSHOT_SECONDS = 600
"""How long the control plane may take to put a whole snapshot together: minutes, for a million numbers."""
_GONE = 410
_LONGEST_ANSWER_BYTES = 1 << 28
_LONGEST_LINE_BYTES = 1 << 26
"""The head of a snapshot holds every trunk."""
_MOST_LINES = 1 << 20


_PATIENCE = aiohttp.ClientTimeout(total=_WAIT_SECONDS + _SNAPSHOT_SECONDS, connect=3, sock_read=_WAIT_SECONDS + 60)
_NEWS = {
    Status: "/edge/v1/status",
    OpenCalls: "/edge/v1/open-calls",
    TrunkNews: "/edge/v1/trunks",
    Strangers: "/edge/v1/strangers",
}


class ControlPlaneError(Exception):
    """The control plane is not there, or does not take what it is sent. `status` is its answer's, if there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ControlPlane:
    """A client of the edge API. Every request has a deadline."""

    def __init__(self, url: str, token: str, edge_id: str, traces: Traces | None = None) -> None:
        """`traces`: where requests about calls are traced, if they are."""
        self._edge_id, self._traces = edge_id, traces
        self._session = aiohttp.ClientSession(
            url, headers={"Authorization": f"Bearer {token}"}, timeout=aiohttp.ClientTimeout(total=15, connect=3)
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def snapshot(self, after: int) -> Snapshot | None:
        """Wait for a snapshot later than version `after`; None when there was none in time."""
        path = "/edge/v1/snapshot"
        try:
            async with self._session.request("GET", path, params=self._waiting(after), timeout=_PATIENCE) as answer:
                if answer.status == 304:
                    return None
                if answer.status != 200:
                    raise ControlPlaneError(f"{path}: HTTP {answer.status}", answer.status)
                return await _read(answer.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ControlPlaneError(f"{path}: {type(error).__name__}") from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise ControlPlaneError(f"{path}: {error}") from error

    async def changes(self, after: int) -> Delta | None:
        """Wait for changes since version `after`; None when there were none in time.

        An error of status 404 or 410 says that only a whole snapshot leads on from there.
        """
        body = await self._ask("GET", "/edge/v1/changes", parameters=self._waiting(after), timeout=_PATIENCE)
        try:
            delta = msgspec.json.decode(body, type=Delta) if body else None
        except msgspec.MsgspecError as error:
            raise ControlPlaneError(f"changes: {error}") from error
        if delta is not None and delta.base != after:
            raise ControlPlaneError("changes: they begin at another version", _GONE)
        return delta

    def _waiting(self, after: int) -> dict[str, str]:
        return {"edge_id": self._edge_id, "after": str(after), "wait_seconds": str(_WAIT_SECONDS)}

    async def report(self, batch: Batch) -> BatchResult:
        """Send events; return which of them are refused for good."""
        call_ids = dict.fromkeys(event.call_id for event in batch.events)
        body = await self._ask("POST", "/edge/v1/events", body=msgspec.json.encode(batch), about=call_ids)
        try:
            return msgspec.json.decode(body, type=BatchResult)
        except msgspec.MsgspecError as error:
            raise ControlPlaneError(f"events: {error}") from error

    async def commands(self, known: tuple[str, ...]) -> tuple[Command, ...]:
        """Wait for commands that are not known yet; none when there were none in time."""
        wanted = CommandsWanted(edge_id=self._edge_id, known=known, wait_seconds=_WAIT_SECONDS)
        timeout = aiohttp.ClientTimeout(total=_WAIT_SECONDS + 10, connect=3)
        body = await self._ask("POST", "/edge/v1/commands", body=msgspec.json.encode(wanted), timeout=timeout)
        try:
            return msgspec.json.decode(body, type=Commands).commands
        except msgspec.MsgspecError as error:
            raise ControlPlaneError(f"commands: {error}") from error

    async def take(self, call_id: str) -> bool:
        """Take a call that is to be placed; False if it is another edge's, or over."""
        try:
            path, parameters = f"/edge/v1/calls/{call_id}/take", {"edge_id": self._edge_id}
            await self._ask("POST", path, parameters=parameters, about=(call_id,))
        except ControlPlaneError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    async def tell(self, news: Status | OpenCalls | TrunkNews | Strangers) -> None:
        """Say how the edge is doing, which calls are open, how the trunks are, or what was refused and is nobody's."""
        await self._ask("POST", _NEWS[type(news)], body=msgspec.json.encode(news))

    async def hand_over_recording(self, call_id: str, file: Path) -> None:
        """Upload a recording; again is no error."""
        with file.open("rb") as body:
            path = f"/edge/v1/calls/{call_id}/recording"
            timeout = aiohttp.ClientTimeout(total=300, connect=3, sock_read=30)
            parameters = {"edge_id": self._edge_id}
            await self._ask(
                "PUT", path, body=body, parameters=parameters, kind="audio/mpeg", timeout=timeout, about=(call_id,)
            )

    async def hand_over_trace(self, trace: Trace) -> None:
        """Upload the SIP messages of a call; a later one replaces an earlier."""
        body = await asyncio.to_thread(lambda: gzip.compress(msgspec.json.encode(trace), 6))
        path = f"/edge/v1/calls/{trace.call_id}/trace"
        parameters, about = {"edge_id": self._edge_id}, (trace.call_id,)
        await self._ask("PUT", path, body=body, parameters=parameters, kind="application/gzip", about=about)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        parameters: Mapping[str, str] | None = None,
        kind: str = "application/json",
        timeout: aiohttp.ClientTimeout | None = None,  # noqa: ASYNC109  (aiohttp's own)
        about: Collection[str] = (),
    ) -> bytes:
        """Ask; `about` are the ids of the calls that it is about."""
        headers = {"Content-Type": kind} if body is not None else {}
        timeout = timeout or self._session.timeout
        try:
            async with (
                self._traced(method, path, about, headers),
                self._session.request(
                    method, path, data=body, params=parameters, headers=headers, timeout=timeout
                ) as answer,
            ):
                content = await answer.content.read(_LONGEST_ANSWER_BYTES)
                if answer.status == 304:
                    return b""
                if not 200 <= answer.status < 300:
                    raise ControlPlaneError(f"{path}: HTTP {answer.status}", answer.status)
                return content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ControlPlaneError(f"{path}: {type(error).__name__}") from error

    @asynccontextmanager
    async def _traced(
        self, method: str, path: str, about: Collection[str], headers: dict[str, str]
    ) -> AsyncIterator[None]:
        """Trace a request about calls, where anything is traced, and say so in its headers."""
        if self._traces is None or not about:
            yield
            return
        route = path.replace(next(iter(about)), "{call_id}")
        with self._traces.request(f"{method} {route}", about) as traceparent:
            headers |= traceparent
            yield


async def _read(content: aiohttp.StreamReader) -> Snapshot:
    """Put a snapshot together as its lines come, letting calls go first after each. Raises ValueError too."""
    reader, rest = Reader(), bytearray()
    count = 0
    async for piece in content.iter_any():
        *lines, last = piece.split(b"\n")
        for line in lines:
            rest += line
            reader.take(rest)
            rest.clear()
            count += 1
            await asyncio.sleep(0)
        rest += last
        if len(rest) > _LONGEST_LINE_BYTES or count > _MOST_LINES:
            raise ValueError("longer than any snapshot")
    return reader.snapshot()
