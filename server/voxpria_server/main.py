"""The API process, with a worker inside: settings -> database -> providers -> app; run by uvicorn.

`__main__` runs it.
"""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from voxpria_server import api, errors
from voxpria_server.auth.service import seed_sandbox
from voxpria_server.kit import logs, tracing
from voxpria_server.kit.ending import end_process_within
from voxpria_server.kit.http import RequestMiddleware
from voxpria_server.kit.reads import Reads
from voxpria_server.migrations import migrate_when_up
from voxpria_server.parts import (
    END_SECONDS,
    Parts,
    close_parts,
    create_background,
    create_parts,
)
from voxpria_server.protocol import protocol
from voxpria_server.reference import endpoints as reference
from voxpria_server.routing import version
from voxpria_server.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Return the app; its lifespan opens and closes everything."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = create_parts(settings)
        for name, part in parts.items():
            setattr(app.state, name, part)
        try:
            await _seed(settings, parts)
            background = create_background(settings, parts)
            for name, each in background.items():
                setattr(app.state, name, each)
                each.start()
            yield
            await asyncio.gather(*(each.stop() for each in background.values()))
        finally:
            await close_parts(parts)

    app = _App(
        settings,
        title="VoxPria",
        version="1",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `kit.tracing` and `kit.metrics` do
        lifespan=lifespan,
    )
    errors.install(app)
    app.include_router(api.edge)  # first: paths are matched in this order, and edges' events are what comes most
    app.include_router(api.v1)
    app.include_router(api.hooks)
    app.include_router(api.probes)
    app.include_router(reference.router)
    return app


class _App(FastAPI):
    """FastAPI, behind what goes round every request; for most reads its own layers are not needed at all."""

    def __init__(self, settings: Settings, **options: Any) -> None:  # noqa: ANN401  (FastAPI's)
        super().__init__(**options)
        self._requests = RequestMiddleware(
            Reads(super().__call__, render=errors.answer, rendered=errors.RENDERED),
            render_failure=partial(errors.render_any, docs_url=settings.docs_url),
            unbounded_prefix=api.edge.prefix,
            body_limits=api.BODY_LIMITS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or open and close the app."""
        if scope["type"] == "http":
            scope["app"] = self
            await self._requests(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _seed(settings: Settings, parts: Parts) -> None:
    """Make what the settings ask for; raise the routes' version, as settings may have changed what edges get."""
    async with parts["database"].transaction() as connection:
        if settings.sandbox:
            await seed_sandbox(connection)
        await version.bump(connection)


class _Server(uvicorn.Server):
    """uvicorn's server, whose shutdown has an end, and is not held up by those who wait for something to happen."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown; a second signal hurries it."""
        end_process_within(END_SECONDS)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what goes on: edges' long polls at once, by answers that tell of nothing new."""
        self._app.state.database.listener.release()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGTERM or SIGINT; open requests get a second to end.

    The database is waited for before anything catches signals, so that the wait can be ended.
    """
    settings = Settings()
    logs.set_up(settings.log_level)
    tracing.set_up("voxpria-api")
    migrate_when_up(settings.database_url.get_secret_value(), settings.database_wait_seconds)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.http_address,
        port=settings.http_port,
        loop="uvloop",
        http=protocol(settings.docs_url),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=1,
        backlog=1024,
    )
    server = _Server(config, app)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(1)
