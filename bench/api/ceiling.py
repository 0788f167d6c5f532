"""What the same answers cost with nothing around them: Starlette, asyncpg and msgspec, no key, no limit, no request id.

python -m bench.api.ceiling DATABASE_URL PORT
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import asyncpg
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Handler = Callable[[Request], Awaitable[Response]]

_SHOWN = (
    *("id", "phone_number", "direction", "from_number", "to_number", "agent_id", "status", "duration_seconds"),
    *("started_at", "answered_at", "ended_at", "recording", "max_duration_seconds", "has_transcript"),
    *("sip_code", "sip_reason", "end_cause", "ended_by"),
)
_FILTER = "ROW($1, 'live', NULL, NULL, NULL)::voxpria_call_filter"
_CALLS = f"""
WITH page AS MATERIALIZED (
    SELECT voxpria_count_calls({_FILTER}, '{{month}}', ARRAY[$2::timestamptz], ARRAY[$3::timestamptz]) AS total,
           voxpria_page_of_calls({_FILTER}, '{{month}}', ARRAY[$2::timestamptz], ARRAY[$3::timestamptz], NULL, $4, 20)
               AS ids
)
SELECT page.total, {", ".join(f"calls.{name}" for name in _SHOWN)}, calls.explanation::text
FROM page LEFT JOIN LATERAL unnest(page.ids) AS found (id) ON true LEFT JOIN calls ON calls.id = found.id
ORDER BY calls.started_at DESC, calls.id DESC
"""  # noqa: S608  (constants only)
_CALL = """
SELECT calls.*, agents.name AS agent_name, call_transcripts.segments FROM calls
LEFT JOIN agents ON agents.id = calls.agent_id AND agents.account_id = calls.account_id AND agents.mode = calls.mode
LEFT JOIN call_transcripts ON call_transcripts.call_id = calls.id
WHERE calls.account_id = $1 AND calls.mode = 'live' AND calls.id = $2
"""
_OWNER = "account_id = $1 AND mode = 'live'"
_ATTEMPTS = """
coalesce((
    SELECT json_agg(json_build_object('number', number, 'duration_ms', duration_ms, 'status_code', status_code,
        'error', error, 'response', response) ORDER BY number)
    FROM webhook_attempts WHERE delivery_id = webhook_deliveries.id
), '[]')::text AS attempts
"""
_LISTS = {
    "/v1/phone-numbers": (
        "id, trunk_id, engine, status, status_reason, agent_id, e164 AS number, created_at, needs_reprovision",
        *("phone_numbers", _OWNER),
    ),
    "/v1/sip/trunks": (
        """id, name, provider, status, created_at,
        (SELECT count(*) FROM phone_numbers WHERE trunk_id = trunks.id) AS phone_numbers_count""",
        *("trunks", _OWNER),
    ),
    "/v1/agents": ("*", "agents", _OWNER),
    "/v1/webhooks": (
        "id, url, events, status, disabled_reason, disabled_at, failing_since, created_at, updated_at",
        *("webhooks", _OWNER),
    ),
    "/v1/events": ("id, body", "events", f"{_OWNER} AND created_at >= now() - interval '30 days' AND NOT is_test"),
    "/v1/webhooks/webhook_bench_01/deliveries": (
        f"""id, webhook_id, event_id, status, next_attempt_at, created_at,
        (SELECT type FROM events WHERE events.id = event_id) AS type, {_ATTEMPTS}""",  # noqa: S608
        "webhook_deliveries",
        "webhook_id = 'webhook_bench_01' AND $1 <> ''",
    ),
}
"""What each list shows, of which table, and whose."""
_GETS = {
    "/v1/sip/trunks/trunk_bench_01": """
        SELECT trunks.*, config::text AS config, coalesce((
            SELECT json_agg(json_build_object('id', n.id, 'number', n.e164, 'status', n.status) ORDER BY n.id DESC)
            FROM (SELECT * FROM phone_numbers WHERE trunk_id = trunks.id ORDER BY id DESC LIMIT 1000) AS n
        ), '[]')::text AS phone_numbers
        FROM trunks WHERE account_id = $1 AND mode = 'live' AND id = 'trunk_bench_01'""",
    "/v1/agents/agent_bench_01": (
        "SELECT * FROM agents WHERE account_id = $1 AND mode = 'live' AND id = 'agent_bench_01'"
    ),
    "/v1/webhooks/webhook_bench_01": (
        "SELECT * FROM webhooks WHERE account_id = $1 AND mode = 'live' AND id = 'webhook_bench_01'"
    ),
    "/v1/phone-numbers/phone_bench_0001": """
        SELECT n.*, n.config::text AS config, t.name AS trunk_name, a.name AS agent_name, p.name AS known_name,
            s.total_calls, s.talk_seconds, s.last_call_at
        FROM phone_numbers n JOIN trunks t ON t.id = n.trunk_id
        LEFT JOIN agents a ON (a.id, a.account_id, a.mode) = (n.agent_id, n.account_id, n.mode)
        LEFT JOIN provider_agents p ON (p.agent_id, p.account_id, p.mode) = (n.agent_id, n.account_id, n.mode)
        LEFT JOIN phone_number_stats s ON s.phone_number_id = n.id
        WHERE n.account_id = $1 AND n.mode = 'live' AND n.id = 'phone_bench_0001'""",
}
_HIDDEN = {
    *("sealed_credentials", "sealed_secret", "former_sealed_secrets", "former_secrets_expire_at", "sealed_hook_secret"),
    *("account_id", "mode"),
}
_JSON = {"config", "attempts", "phone_numbers"}
_EVENTS = "SELECT body FROM call_events WHERE call_id = $1 ORDER BY position"
_ACCOUNT = "acct_big"
_BOUNDS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
_encode = msgspec.json.encode


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='seconds')[:19]}Z"


def _shown(row: asyncpg.Record) -> dict[str, object]:
    return {
        "id": row["id"],
        "phone_number": row["phone_number"],
        "direction": row["direction"],
        "from": row["from_number"],
        "to": row["to_number"],
        "agent_id": row["agent_id"],
        "status": row["status"],
        "duration": row["duration_seconds"],
        "started_at": _iso(row["started_at"]),
        "answered_at": _iso(row["answered_at"]),
        "ended_at": _iso(row["ended_at"]),
        "recording_url": None,
        "transcript_available": row["has_transcript"],
        "max_duration": row["max_duration_seconds"],
        "sip_code": row["sip_code"],
        "sip_reason": row["sip_reason"],
        "end_cause": row["end_cause"],
        "ended_by": row["ended_by"],
        "explanation": msgspec.Raw(row["explanation"].encode()),
    }


def _json(value: object) -> Response:
    return Response(_encode(value), media_type="application/json")


async def _list(request: Request) -> Response:
    page = int(request.query_params.get("page", "1"))
    rows = await request.app.state.pool.fetch(_CALLS, _ACCOUNT, *_BOUNDS, (page - 1) * 20)
    shown = [_shown(row) for row in rows if row["id"] is not None]
    return _json({"data": shown, "pagination": {"page": page, "per_page": 20, "total": rows[0]["total"]}})


async def _get(request: Request) -> Response:
    async with request.app.state.pool.acquire() as connection:
        row = await connection.fetchrow(_CALL, _ACCOUNT, request.path_params["id"])
        events = await connection.fetch(_EVENTS, row["id"])
    return _json({**_shown(row), "agent_name": row["agent_name"], "transcript": None, "events": [e[0] for e in events]})


def _plain(row: asyncpg.Record) -> dict[str, object]:
    return {
        name: msgspec.Raw(value.encode()) if name in _JSON else value
        for name, value in row.items()
        if name not in _HIDDEN
    }


def _lister(shown: str, source: str, wanted: str) -> Handler:
    sql = (
        f"WITH page AS (SELECT {shown} FROM {source} WHERE {wanted} ORDER BY id DESC LIMIT 20 OFFSET $2)"  # noqa: S608
        f" SELECT (SELECT count(*) FROM {source} WHERE {wanted}) AS total, page.* FROM page ORDER BY id DESC"
    )

    async def answer(request: Request) -> Response:
        page = int(request.query_params.get("page", "1"))
        rows = await request.app.state.pool.fetch(sql, _ACCOUNT, (page - 1) * 20)
        data = [msgspec.Raw(row["body"]) if source == "events" else _plain(row) for row in rows]
        return _json({"data": data, "pagination": {"page": page, "per_page": 20, "total": rows[0]["total"]}})

    return answer


def _getter(sql: str) -> Handler:
    async def answer(request: Request) -> Response:
        return _json(_plain(await request.app.state.pool.fetchrow(sql, _ACCOUNT)))

    return answer


def build(url: str) -> Starlette:
    """Return the app."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=8, max_size=8) as app.state.pool:
            yield

    routes = [Route("/v1/calls", _list), Route("/v1/calls/{id}", _get)]
    routes += [Route(path, _lister(*parts)) for path, parts in _LISTS.items()]
    routes += [Route(path, _getter(sql)) for path, sql in _GETS.items()]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(
        build(sys.argv[1]), port=int(sys.argv[2]), loop="uvloop", http="httptools", log_level="error", access_log=False
    )
