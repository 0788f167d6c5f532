"""Durable work of the status page: looking, once a minute, and keeping what was seen."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from voxpria_server import readiness
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import Blueprint, JobContext
from voxpria_server.providers.base import Mode
from voxpria_server.reference import history, queries, status

blueprint = Blueprint()
_API_SECONDS = 5.0
_PROVIDER_SECONDS = 10.0


@blueprint.periodic(cron="* * * * *")
@blueprint.task(name="status:look", queue="maintenance", queueing_lock="status:look", pass_context=True)
async def look(context: JobContext, timestamp: int) -> None:
    """Look at every part, and at the API of every provider that a trunk uses; keep what is found."""
    del timestamp  # what counts is when it was looked
    parts = context.additional_context
    database: Database = parts["database"]
    is_sandbox = parts["settings"].sandbox
    async with database.read() as conn:
        seen = await queries.trunks_seen(conn, status.PROVIDERS, is_sandbox=is_sandbox)
    mode: Mode = "test" if is_sandbox else "live"
    used = [name for name in status.PROVIDERS if name in seen]
    api, edge, apis = await asyncio.gather(
        _api(parts), readiness.in_time(readiness.check_edge(database)), _apis(parts, used, mode)
    )
    states = {"API": api, "Database": "operational", "Workers": "operational"}
    states["Edge"] = "operational" if edge is None else "down"
    for name in status.PROVIDERS:
        states[name] = status.provider(apis.get(name, "unknown"), seen.get(name))["status"]
    now = utc_now()
    async with database.transaction() as conn:
        await history.record(conn, states, now)
        await queries.put_checks(conn, states | {status.key_of(name): state for name, state in apis.items()}, now)


async def _api(parts: Mapping[str, Any]) -> str:
    """Ask the API where customers do."""
    http: httpx2.AsyncClient = parts["http"]
    try:
        answer = await http.get(f"{parts['settings'].public_url}/healthz", timeout=_API_SECONDS)
    except httpx2.HTTPError:
        return "down"
    return "operational" if answer.is_success else "down"


async def _apis(parts: Mapping[str, Any], used: Sequence[str], mode: Mode) -> dict[str, str]:
    """Ask the providers' APIs, side by side."""
    answers = await asyncio.gather(*(_answers(parts, name, mode) for name in used))
    return dict(zip(used, answers, strict=True))


async def _answers(parts: Mapping[str, Any], name: str, mode: Mode) -> str:
    try:
        async with asyncio.timeout(_PROVIDER_SECONDS):
            is_there = await parts["providers"][name].answers(mode)
    except TimeoutError:
        is_there = False
    return "operational" if is_there else "down"
