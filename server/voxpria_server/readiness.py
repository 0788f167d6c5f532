"""/healthz (the process answers) and /readyz (every part of the product is up, or which is not and why)."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import httpx2
import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from voxpria_routing.edge_api import Part

from voxpria_server.kit.db import Database, DatabaseUnavailableError, Row
from voxpria_server.kit.jobs import Worker, is_any_alive
from voxpria_server.routing import edges
from voxpria_server.settings import Settings

router = APIRouter(include_in_schema=False)
_DEADLINE_SECONDS = 2.0
_EDGE_PARTS = ("kamailio", "rtpengine")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answer: the process is there."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> JSONResponse:
    """Answer 200 if calls and requests work end to end, else 503; either way with every part's state."""
    state = request.app.state
    settings: Settings = state.settings
    checks: dict[str, Awaitable[str | None]] = {
        "database": check_database(state.database),
        "worker": check_worker(state.worker),
        "edge": check_edge(state.database),
    }
    if settings.sandbox:
        checks["sandbox"] = _sandbox(state.http, settings)
    reasons = dict(zip(checks, await asyncio.gather(*map(in_time, checks.values())), strict=True))
    parts = {name: {"is_up": why is None} | ({"detail": why} if why else {}) for name, why in reasons.items()}
    is_ready = not any(reasons.values())
    body: dict[str, Any] = {"status": "ready" if is_ready else "not ready", "parts": parts}
    body["routes_are_applied"] = reasons["database"] is None and await _routes_are_applied(state.database)
    return JSONResponse(body, status_code=200 if is_ready else 503)


async def in_time(check: Awaitable[str | None]) -> str | None:
    """Return why a part is not up, or None."""
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            return await check
    except (TimeoutError, DatabaseUnavailableError):
        return "the database does not answer"


async def check_database(database: Database) -> str | None:
    """Return why the database is down, or None."""
    await database.ping()
    return None


async def check_worker(worker: Worker) -> str | None:
    """Return why no job runs, or None."""
    return worker.down_reason


async def check_workers(database: Database) -> str | None:
    """Return why no job runs in any process, or None."""
    return None if await is_any_alive(database) else "no worker has shown a sign of life"


async def check_edge(database: Database) -> str | None:
    """Return why no edge is whole, or None."""
    async with database.read() as conn:
        fresh = await edges.fresh(conn)
    if not fresh:
        return f"no edge has reported in the last {edges.FRESH_SECONDS} s"
    whole = [edge for edge in fresh if not _missing(edge)]
    return None if whole else "; ".join(_missing(fresh[0]))


async def _routes_are_applied(database: Database) -> bool:
    """Tell whether every edge has in force what was last committed."""
    try:
        return await edges.wait_until_live(database, 0)
    except DatabaseUnavailableError:
        return False


def _missing(edge: Row) -> list[str]:
    """Say what of an edge is not up."""
    parts = msgspec.convert(edge.parts, dict[str, Part])
    names = {*_EDGE_PARTS, *parts}
    down = {name: parts.get(name) for name in sorted(names) if name not in parts or not parts[name].is_up}
    return [f"{name}: {part.detail or 'down' if part else 'not reported'}" for name, part in down.items()]


async def _sandbox(http: httpx2.AsyncClient, settings: Settings) -> str | None:
    try:
        answer = await http.get(f"{settings.sandbox_url}/healthz", timeout=_DEADLINE_SECONDS - 0.2)
    except httpx2.HTTPError as error:
        return f"{settings.sandbox_url} does not answer ({type(error).__name__})"
    return None if answer.is_success else f"{settings.sandbox_url} answers {answer.status_code}"
