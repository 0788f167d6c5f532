"""A customer's server: takes webhooks, and answers as it is told."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> str:
        return json.loads(self.body)["event"]


@dataclass
class Receiver:
    """A running server. `answers` are given in turn, then 200."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: list[int | Answer] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int, seconds: float = 90) -> list[Received]:
        """Return what came, once it is at least so much."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.received

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.path, headers, await request.read()))
        self._changed.set()
        answer = self.answers.pop(0) if self.answers else 200
        return web.Response(status=answer, text=f"said {answer}") if isinstance(answer, int) else await answer(request)


async def start(receiver: Receiver) -> web.AppRunner:
    """Start the server on a free port; clean the runner up to end it."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    receiver.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    return runner
