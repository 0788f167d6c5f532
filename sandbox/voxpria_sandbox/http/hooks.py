"""A receiver of webhooks: keeps what comes, byte for byte, and fails on demand."""

import base64
import datetime as dt
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from voxpria_sandbox.http import bodies

_KEPT = 100
_MAX_HOOKS = 100
_PATH = "/hooks/{name:[A-Za-z0-9_-]{1,64}}"


class Failures(BaseModel):
    """Body of `PUT /hooks/{name}/failures`: the next `count` requests are answered with `status`."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=0, le=1000)
    status: int = Field(500, ge=300, le=599)


@dataclass
class _Hook:
    requests: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    failures: Failures = field(default_factory=lambda: Failures(count=0))


class Receiver:
    """All hooks; one comes into being when it is first used."""

    def __init__(self) -> None:
        self._hooks: dict[str, _Hook] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post(_PATH, self._receive),
            web.get(_PATH, self._show),
            web.put(f"{_PATH}/failures", self._fail),
        ]

    def _hook(self, request: web.Request) -> _Hook:
        name = request.match_info["name"]
        if name not in self._hooks and len(self._hooks) >= _MAX_HOOKS:
            raise bodies.refusal(web.HTTPInsufficientStorage, "the sandbox keeps no more hooks: use an existing one")
        return self._hooks.setdefault(name, _Hook())

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        hook = self._hook(request)
        hook.requests.append(
            {
                **_text(body),
                "headers": dict(request.headers),
                "received_at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
        )
        if hook.failures.count:
            hook.failures.count -= 1
            return web.json_response({"detail": "failing on demand"}, status=hook.failures.status)
        return web.json_response({"received": True})

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response({"requests": list(self._hook(request).requests)})

    async def _fail(self, request: web.Request) -> web.Response:
        self._hook(request).failures = failures = await bodies.read(request, Failures)
        return web.json_response(failures.model_dump())


def _text(body: bytes) -> dict[str, str]:
    """Return the body as text; bytes that are no text besides, so that nothing is lost."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body": body.decode(errors="replace"), "body_base64": base64.b64encode(body).decode()}
