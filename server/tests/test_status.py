"""The status page's memory: minute by minute, bounded, and honest about what nobody looked at."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from aiohttp import web
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.jobs import is_any_alive
from voxpria_server.reference import history, queries, status
from voxpria_server.reference.lookout import Lookout

from server.tests.edge_client import connect
from server.tests.test_numbers_api import an_edge

NOON = datetime(2026, 5, 6, 12, tzinfo=UTC)
UP = dict.fromkeys((*status.PARTS, *status.PROVIDERS), "operational")


async def keep(database, states: dict[str, str], at: datetime) -> None:
    async with database.transaction() as conn:
        await history.record(conn, states, at)


async def minutes(database, part: str) -> dict[date, dict[str, int]]:
    async with database.read() as conn:
        rows = await queries.days(conn, date(2000, 1, 1))
    return {row.day: {s: n for s in history.STATES if (n := getattr(row, s))} for row in rows if row.part == part}


async def test_each_look_is_a_minute_of_its_day(database):
    for n in range(5):
        await keep(database, UP | {"Edge": "down" if n > 2 else "operational"}, NOON + timedelta(minutes=n))
    assert await minutes(database, "Edge") == {NOON.date(): {"operational": 3, "down": 2}}
    assert await minutes(database, "API") == {NOON.date(): {"operational": 5}}


async def test_while_nobody_looked_nothing_is_claimed_of_any_part(database):
    await keep(database, UP, NOON)
    await keep(database, UP, NOON + timedelta(hours=24))
    for part in UP:
        assert await minutes(database, part) == {
            NOON.date(): {"operational": 1, "unknown": 719},
            NOON.date() + timedelta(days=1): {"operational": 1, "unknown": 720},
        }


async def test_what_was_found_while_the_database_was_away_is_kept_once_by_whoever_comes_first(database):
    await keep(database, UP, NOON)
    away = UP | {"Database": "down", "Edge": "unknown"}
    untold = {NOON + timedelta(minutes=n): away for n in (-5, 0, 2, 3, 4)}
    for _ in range(2):
        async with database.transaction() as conn:
            await history.record(conn, UP, NOON + timedelta(minutes=10), untold)
    assert await minutes(database, "Database") == {NOON.date(): {"operational": 2, "down": 3, "unknown": 6}}
    assert await minutes(database, "Edge") == {NOON.date(): {"operational": 2, "unknown": 9}}
    assert await minutes(database, "API") == {NOON.date(): {"operational": 5, "unknown": 6}}


async def test_a_minute_that_many_processes_look_at_is_one(database):
    await asyncio.gather(*(keep(database, UP, NOON + timedelta(minutes=n)) for n in (1, 2) for _ in range(8)))
    assert await minutes(database, "API") in ({NOON.date(): {"operational": n}} for n in (1, 2))


async def test_no_more_than_ninety_days_are_kept_however_long_nobody_looked(database):
    await keep(database, UP, NOON)
    await keep(database, UP, NOON + timedelta(days=4000))
    async with database.read() as conn:
        count = (await conn.execute(sa.text("SELECT count(*), count(DISTINCT day) FROM status_days"))).one()
    assert tuple(count) == (len(UP) * history.DAYS, history.DAYS)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("found", "state"),
    [
        ({}, "unknown"),
        ({"unknown": 1440}, "unknown"),
        ({"operational": 1}, "operational"),
        ({"operational": 1400, "down": 2}, "operational"),
        ({"operational": 1400, "down": 1, "degraded": 2}, "degraded"),
        ({"operational": 1400, "down": 3}, "down"),
    ],
)
def test_a_day_is_shown_in_the_worst_that_lasted(found, state):
    assert history.colour(dict.fromkeys(history.STATES, 0) | found) == state


@pytest.mark.unit
@pytest.mark.parametrize(
    ("api", "sip", "state"),
    [
        ("unknown", "unknown", "unknown"),
        ("operational", "unknown", "operational"),
        ("unknown", "down", "down"),
        ("operational", "down", "degraded"),
        ("down", "operational", "degraded"),
        ("down", "down", "down"),
        ("operational", "degraded", "degraded"),
    ],
)
def test_a_provider_is_judged_by_its_api_and_its_sip_servers(api, sip, state):
    assert status.together(api, sip) == state


class FakeApis:
    """The providers' APIs as the sandbox has them: they refuse who shows no key, or fail."""

    def __init__(self) -> None:
        self.status, self.asked = 401, []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.Response(status=self.status)


@pytest.fixture
async def apis(settings):
    fake = FakeApis()
    app = web.Application()
    app.router.add_get("/{provider}/v1/models", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    yield fake
    await runner.cleanup()


async def look(api) -> None:
    """Look anew, though this minute was looked at."""
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE status_parts SET checked_at = checked_at - interval '1 minute'"))
    await Lookout(api.app.state._state).look()


async def test_looking_finds_what_is_true(api, client, apis):
    trunk = {"name": "T", "provider": "elevenlabs", "credentials": {"username": "u", "password": "p"}}
    assert (await client.post("/v1/sip/trunks", json=trunk)).status_code == 201
    await a_worker(api.database)
    async with an_edge(api.database):
        await asyncio.sleep(0)
        await look(api)
    assert set(apis.asked) == {"/elevenlabs/v1/models"}  # a provider that no trunk uses is not asked
    told = (await client.get("/status.json")).json()
    today = {part: past["days"][-1]["minutes"] for part, past in told["history"].items()}
    assert today["Database"]["operational"] == today["Workers"]["operational"] == 1
    assert today["API"]["down"] == 1  # nothing listens at its public URL here
    assert today["openai"]["unknown"] == 1
    assert told["providers"]["openai"]["status"] == "unknown"
    assert "Its API answers" in told["providers"]["elevenlabs"]["detail"]

    apis.status = 503
    await look(api)
    told = (await client.get("/status.json")).json()
    assert told["providers"]["elevenlabs"]["status"] == "down"
    assert told["status"] in {"degraded", "down"}  # the edge counts as there for a while


async def a_worker(database) -> None:
    async with asyncio.timeout(60):
        while not await is_any_alive(database):
            await asyncio.sleep(0.02)


async def test_workers_are_down_when_a_look_finds_none(api, client):
    await a_worker(api.database)
    await api.app.state.worker.stop()
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("DELETE FROM procrastinate_workers"))
    await look(api)
    told = (await client.get("/status.json")).json()
    assert told["parts"]["Workers"]["status"] == "down"
    assert told["history"]["Workers"]["days"][-1]["minutes"] == {
        "operational": 0,
        "degraded": 0,
        "down": 1,
        "unknown": 0,
    }


async def test_a_database_that_is_away_is_told_of_when_it_is_back(api):
    parts, now = dict(api.app.state._state), NOON
    lookout = Lookout(parts, lambda: now)
    parts["database"] = Database("postgresql://voxpria@/voxpria?host=/nowhere")
    for _ in range(3):
        await lookout.look()
        now += timedelta(minutes=1)
    parts["database"] = api.database
    for _ in range(2):
        await lookout.look()
    assert await minutes(api.database, "Database") == {NOON.date(): {"down": 3, "operational": 1}}
    assert await minutes(api.database, "Edge") == {NOON.date(): {"down": 1, "unknown": 3}}


async def test_the_page_shows_the_days_and_names_no_tenant(api, client):
    now = utc_now()
    for n in range(10):
        await keep(api.database, UP | {"Edge": "down"}, now + timedelta(minutes=n - 10))
    await connect(api)
    page = (await client.get("/status")).text
    bars = re.findall(r'<svg class="bars".*?</svg>', page, re.S)
    assert len(bars) == len(UP)
    assert all(bar.count("<rect") == history.DAYS for bar in bars)
    edge = next(bar for bar in bars if 'aria-label="Edge:' in bar)
    assert '<rect class="down"' in edge
    assert not re.search(r"acct_|trunk_|phone_|\+1555", page)
