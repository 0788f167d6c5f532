"""/status: how the service is and was, told to anybody; so it names no tenant, no address and no number of anything.

A provider is judged by two things: whether its own API answers us (asked once a minute where any trunk uses it), and
whether its SIP servers were reachable from the trunks that were looked at in the last hour. Where neither is known,
nothing is claimed.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from fastapi import Request

from voxpria_server import readiness
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.kit.db import Database, DatabaseUnavailableError, Row
from voxpria_server.reference import history, queries

WORDS = {
    "operational": "Everything works.",
    "degraded": "Some of it does not work as it should.",
    "down": "It does not work at the moment.",
}
PARTS = ("API", "Database", "Workers", "Edge")
PROVIDERS = ("elevenlabs", "openai")
NAMES = {"elevenlabs": "ElevenLabs", "openai": "OpenAI"}
_FRESH = timedelta(minutes=5)
_SECONDS = 3.0
_DETAILS = {
    ("operational", "operational"): "Its API answers, and its SIP servers are reached.",
    ("operational", "degraded"): "Its API answers; its SIP servers are not reached from some trunks.",
    ("operational", "down"): "Its API answers; its SIP servers are not reached.",
    ("operational", "unknown"): "Its API answers; no trunk was looked at in the last hour.",
    ("down", "operational"): "Its API does not answer; its SIP servers are reached.",
    ("down", "degraded"): "Its API does not answer; its SIP servers are not reached from some trunks.",
    ("down", "down"): "Neither its API answers, nor are its SIP servers reached.",
    ("down", "unknown"): "Its API does not answer; no trunk was looked at in the last hour.",
    ("unknown", "operational"): "Its SIP servers are reached from the trunks looked at in the last hour.",
    ("unknown", "degraded"): "Its SIP servers are not reached from some of the trunks looked at in the last hour.",
    ("unknown", "down"): "Its SIP servers are not reached from any trunk looked at in the last hour.",
    ("unknown", "unknown"): "Nothing is known: no trunk uses it, or none was looked at in the last hour.",
}
"""By what is known of the API, and of the SIP servers."""


async def current(request: Request) -> dict[str, Any]:
    """Return the state of every part and provider as it is found now, and their last 90 days."""
    state = request.app.state
    database, workers, edge, (providers, past) = await asyncio.gather(
        readiness.in_time(readiness.check_database(state.database)),
        readiness.in_time(readiness.check_workers(state.database)),
        readiness.in_time(readiness.check_edge(state.database)),
        _kept(state.database, is_sandbox=state.settings.sandbox),
    )
    parts = {
        "API": _part(is_up=True),
        "Database": _part(is_up=database is None, detail="The database does not answer."),
        "Workers": _part(is_up=workers is None, detail="Durable work is not being done at the moment."),
        "Edge": _part(is_up=edge is None, detail="No edge is whole: calls may not be taken."),
    }
    return {
        "status": _overall(parts, providers),
        "checked_at": iso(utc_now()),
        "parts": parts,
        "providers": providers,
        "history": past,
    }


def judge(reached: int, seen: int) -> str:
    """Return the state of a provider's SIP servers, by how many of the trunks that were looked at reached them."""
    if seen == 0:
        return "unknown"
    return "operational" if reached == seen else "degraded" if reached else "down"


def together(api: str, sip: str) -> str:
    """Return a provider's state, by those of its API and its SIP servers."""
    known = {api, sip} - {"unknown"}
    if not known:
        return "unknown"
    return known.pop() if len(known) == 1 else "degraded"


def provider(api: str, seen: Row | None) -> dict[str, str]:
    """Return what is told of a provider."""
    sip = judge(seen.reached, seen.seen) if seen is not None else "unknown"
    return {"status": together(api, sip), "detail": _DETAILS[api, sip]}


def api_of(last: Row | None) -> str:
    """Return what is known of a provider's API: what was last found, unless that is long ago."""
    return last.state if last is not None and utc_now() - last.checked_at < _FRESH else "unknown"


def key_of(name: str) -> str:
    """Return the name by which the last check of a provider's API is kept."""
    return f"{name} API"


def _part(*, is_up: bool, detail: str = "") -> dict[str, str | None]:
    return {"status": "operational" if is_up else "down", "detail": None if is_up else detail}


def _overall(parts: Mapping[str, Mapping[str, Any]], providers: Mapping[str, Mapping[str, Any]]) -> str:
    if any(part["status"] == "down" for part in parts.values()):
        return "down"
    is_whole = all(provider["status"] in {"operational", "unknown"} for provider in providers.values())
    return "operational" if is_whole else "degraded"


async def _kept(database: Database, *, is_sandbox: bool) -> tuple[dict[str, dict[str, str]], dict[str, Any] | None]:
    """Return what the database knows of the providers, and of the past; nothing of either if it does not answer."""
    try:
        async with asyncio.timeout(_SECONDS), database.read() as conn:
            seen = await queries.trunks_seen(conn, PROVIDERS, is_sandbox=is_sandbox)
            last = await queries.last_checks(conn)
            past = await history.read(conn, (*PARTS, *PROVIDERS))
    except (TimeoutError, DatabaseUnavailableError, sa.exc.DBAPIError):
        return {name: provider("unknown", None) for name in PROVIDERS}, None
    return {name: provider(api_of(last.get(key_of(name))), seen.get(name)) for name in PROVIDERS}, past
