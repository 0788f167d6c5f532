"""A stand-in for our own control plane's edge API: it serves a snapshot, and keeps what the edge tells it.

A fake of the server (see `voxpria_routing.edge_api`), typed by the shared language; no database. It runs on an event
loop of its own, in a thread, so that synchronous tests may use it.
"""

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from voxpria_routing import snapshot
from voxpria_routing.edge_api import (
    Command,
    Commands,
    CommandsWanted,
    OpenCalls,
    Refused,
    Registration,
    Status,
    Strangers,
    TrunkNews,
    TrunkReport,
)
from voxpria_routing.events import Batch, BatchResult, CallEvent
from voxpria_routing.snapshot import Limits, Number, Snapshot, Trunk
from voxpria_routing.trace import Trace

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
TOKEN = "a token of the tests"


@dataclass
class ControlPlaneStandIn:
    """What the edge is given, and what it told. Safe to read from the test's thread."""

    port: int
    events: dict[str, list[CallEvent]] = field(default_factory=dict)
    """By our id of the call, oldest first; each event once."""
    recordings: dict[str, bytes] = field(default_factory=dict)
    traces: dict[str, list[Trace]] = field(default_factory=dict)
    """Every trace handed over, by our id of the call."""
    status: Status | None = None
    open_calls: OpenCalls | None = None
    reports: dict[str, TrunkReport] = field(default_factory=dict)
    """By trunk id, the last."""
    registrations: dict[str, Registration] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    """Sums of calls that are nobody's, as they were told."""
    applied_version: int = 0
    routes: Snapshot = snapshot.EMPTY
    is_down: bool = False
    """True answers every request with 503."""
    commands: list[Command] = field(default_factory=list)
    """What the edge is asked to do."""
    taken: list[str] = field(default_factory=list)
    """Calls that the edge took to place them."""
    takes: bool = True
    """False gives every call to another edge."""
    _seen: set[str] = field(default_factory=set)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._changed, self._ordered = asyncio.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="control plane", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def publish(self, trunks: Iterable[Trunk], numbers: Iterable[Number], limits: Limits) -> int:
        """Put new routes into force, with every account's limits, and return their version."""
        held: dict[str, tuple[Number, ...]] = {}
        for number in numbers:
            held[number.e164] = (*held.get(number.e164, ()), number)
        routes = Snapshot(
            version=self.routes.version + 1, trunks={t.id: t for t in trunks}, numbers=held, default_limits=limits
        )
        self.routes = routes
        self._loop.call_soon_threadsafe(self._changed.set)
        return routes.version

    def order(self, command: Command) -> None:
        """Ask the edge to do something."""
        self.commands.append(command)
        self._loop.call_soon_threadsafe(self._ordered.set)

    async def _serve(self) -> None:
        app = web.Application(client_max_size=1 << 28, middlewares=[self._guard])
        app.router.add_get("/edge/v1/snapshot", self._snapshot)
        app.router.add_post("/edge/v1/events", self._events)
        app.router.add_post("/edge/v1/status", self._status)
        app.router.add_post("/edge/v1/open-calls", self._open_calls)
        app.router.add_post("/edge/v1/commands", self._commands)
        app.router.add_post("/edge/v1/trunks", self._trunks)
        app.router.add_post("/edge/v1/strangers", self._strangers)
        app.router.add_post("/edge/v1/calls/{call_id}/take", self._take)
        app.router.add_put("/edge/v1/calls/{call_id}/recording", self._recording)
        app.router.add_put("/edge/v1/calls/{call_id}/trace", self._trace)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        return web.Response(status=503) if self.is_down else await handler(request)

    async def _snapshot(self, request: web.Request) -> web.Response:
        after = int(request.query["after"])
        self.applied_version = after
        deadline = self._loop.time() + float(request.query["wait_seconds"])
        while self.routes.version == after:
            self._changed.clear()
            left = deadline - self._loop.time()
            if left <= 0:
                return web.Response(status=304)
            await asyncio.wait([asyncio.ensure_future(self._changed.wait())], timeout=left)
        return web.Response(body=snapshot.encode(self.routes), content_type="application/json")

    async def _events(self, request: web.Request) -> web.Response:
        batch = msgspec.json.decode(await request.read(), type=Batch)
        for event in batch.events:
            if event.id not in self._seen:
                self._seen.add(event.id)
                self.events.setdefault(event.call_id, []).append(event)
        return web.Response(body=msgspec.json.encode(BatchResult()), content_type="application/json")

    async def _status(self, request: web.Request) -> web.Response:
        self.status = msgspec.json.decode(await request.read(), type=Status)
        return web.Response(status=204)

    async def _open_calls(self, request: web.Request) -> web.Response:
        self.open_calls = msgspec.json.decode(await request.read(), type=OpenCalls)
        return web.Response(status=204)

    async def _commands(self, request: web.Request) -> web.Response:
        wanted = msgspec.json.decode(await request.read(), type=CommandsWanted)
        deadline = self._loop.time() + wanted.wait_seconds
        while (
            not (news := tuple(c for c in self.commands if c.id not in wanted.known)) and self._loop.time() < deadline
        ):
            self._ordered.clear()
            waiting = asyncio.ensure_future(self._ordered.wait())
            await asyncio.wait([waiting], timeout=deadline - self._loop.time())
            waiting.cancel()
        return web.Response(body=msgspec.json.encode(Commands(commands=news)), content_type="application/json")

    async def _trunks(self, request: web.Request) -> web.Response:
        news = msgspec.json.decode(await request.read(), type=TrunkNews)
        self.reports |= {report.trunk_id: report for report in news.reports}
        for trunk_id, registration in news.registrations.items():
            if registration is None:
                self.registrations.pop(trunk_id, None)
            else:
                self.registrations[trunk_id] = registration
        return web.Response(status=204)

    async def _strangers(self, request: web.Request) -> web.Response:
        self.refused += msgspec.json.decode(await request.read(), type=Strangers).refused
        return web.Response(status=204)

    async def _take(self, request: web.Request) -> web.Response:
        if self.takes:
            self.taken.append(request.match_info["call_id"])
        return web.Response(status=204 if self.takes else 409)

    async def _recording(self, request: web.Request) -> web.Response:
        self.recordings[request.match_info["call_id"]] = await request.read()
        return web.Response(status=204)

    async def _trace(self, request: web.Request) -> web.Response:
        trace = msgspec.json.decode(gzip.decompress(await request.read()), type=Trace)
        self.traces.setdefault(request.match_info["call_id"], []).append(trace)
        return web.Response(status=204)
