"""Rate limits: exact across processes, told in every answer's headers, and reset when they say."""

import asyncio
import signal
import time
from collections import Counter

import httpx2
import pytest
import sqlalchemy as sa
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY, seed_sandbox
from voxpria_server.kit.db import Database
from voxpria_server.migrations import migrate
from voxpria_server.settings import Settings

from server.tests.process import Process
from tests.ports import free_ports

TRUNK = {"name": "T", "provider": "generic", "config": {"server": "127.0.0.1", "port": 9}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the limit that an operator has who sets none."""
    return settings.model_copy(update={"requests_per_hour": Settings.model_fields["requests_per_hour"].default})


def told(answer) -> tuple[int, int, int]:
    names = ("Limit", "Remaining", "Reset")
    return tuple(int(answer.headers[f"X-RateLimit-{name}"]) for name in names)


async def set_limits(database: Database, **limits: int) -> None:
    async with database.transaction() as conn:
        await conn.execute(sa.text("UPDATE plans SET " + ", ".join(f"{name} = {n}" for name, n in limits.items())))


async def end_windows_in(database: Database, seconds: int) -> None:
    """Let the present windows end soon, as if they had been opened earlier."""
    statement = "UPDATE rate_windows SET resets_at = date_trunc('second', now()) + make_interval(secs => :seconds)"
    async with database.transaction() as conn:
        await conn.execute(sa.text(statement), {"seconds": seconds})


async def test_every_authenticated_answer_tells_where_the_limit_stands(api, client):
    answers = [
        await client.get("/v1/agents"),
        await client.get("/v1/agents?page=0"),
        await client.get("/v1/agents/agent_none"),
        await client.post("/v1/agents", content=b"{", headers={"Content-Type": "application/json"}),
        await client.post("/v1/agents", json={"name": "A", "engine": "openai"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 404, 400, 201]
    assert [told(answer)[:2] for answer in answers] == [(1000, 1000 - n) for n in range(1, 6)]
    resets = {told(answer)[2] for answer in answers}
    assert len(resets) == 1
    assert 3500 < resets.pop() - time.time() <= 3600
    reader = await api.client(await api.new_key(scopes={"agents:read"}))
    refused = await reader.post("/v1/agents", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_permissions")
    assert told(refused)[1] == 999
    stranger = await api.client("vox_sk_test_" + "0" * 64)
    assert "x-ratelimit-limit" not in (await stranger.get("/v1/agents")).headers


async def test_a_key_is_asked_for_before_the_body_is_read(api):
    stranger = await api.client(None)
    answer = await stranger.post("/v1/agents", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "api_key_missing")


async def test_beyond_the_limit_is_429_until_the_window_ends(api, client):
    await set_limits(api.database, requests_per_hour=3)
    for left in (2, 1, 0):
        assert told(await client.get("/v1/agents"))[1] == left
    for _ in range(3):
        refused = await client.get("/v1/agents")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert refused.json()["error"]["details"] == {"limit": 3, "window_seconds": 3600}
        assert 3500 < int(refused.headers["Retry-After"]) <= 3600
        assert told(refused)[:2] == (3, 0)
    for mode in ("test", "live"):  # another account's, and the other mode's, limits are their own
        other = await api.client(await api.new_key(mode=mode, account_id=None if mode == "test" else "acct_sandbox"))
        assert (await other.get("/v1/agents")).status_code == 200
    await end_windows_in(api.database, 5)
    refused = await client.get("/v1/agents")
    reset = told(refused)[2]
    assert refused.status_code == 429
    while (answer := await client.get("/v1/agents")).status_code == 429:
        assert time.time() < reset + 30
        await asyncio.sleep(0.01)
    assert time.time() >= reset
    assert told(answer)[1] == 2


async def test_a_higher_limit_holds_at_once(api, client):
    await set_limits(api.database, requests_per_hour=1)
    assert [(await client.get("/v1/agents")).status_code for _ in range(5)] == [200, 429, 429, 429, 429]
    await set_limits(api.database, requests_per_hour=5)
    assert told(await client.get("/v1/agents"))[:2] == (5, 2)


def number(n: int, trunk_id: str) -> dict[str, str]:
    return {"phone_number": f"+1555555{n:04}", "trunk_id": trunk_id}


async def test_imports_count_only_what_was_imported(client):
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    for bad in ({"phone_number": "1"}, {"phone_number": "1", "trunk_id": trunk}, number(0, "trunk_none")):
        assert told(await client.post("/v1/phone-numbers/import", json=bad))[:2] == (10, 10)
    for n in range(10):
        answer = await client.post("/v1/phone-numbers/import", json=number(n, trunk))
        assert (answer.status_code, told(answer)[:2]) == (201, (10, 9 - n))
        assert 0 < told(answer)[2] - time.time() <= 60
    again = await client.post("/v1/phone-numbers/import", json=number(0, trunk))
    assert (again.status_code, told(again)[:2]) == (409, (10, 0))
    refused = await client.post("/v1/phone-numbers/import", json=number(10, trunk))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "import_limit_exceeded")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert told(refused)[:2] == (10, 0)
    listed = await client.get("/v1/phone-numbers")
    assert listed.json()["pagination"]["total"] == 10
    assert told(listed)[0] == 1000


async def test_imports_that_come_together_are_each_answered_for_themselves(client):
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    assert (await client.post("/v1/phone-numbers/import", json=number(0, trunk))).status_code == 201
    bodies = [*(number(n, trunk) for n in range(11)), number(11, "trunk_none")]
    answers = await asyncio.gather(*(client.post("/v1/phone-numbers/import", json=body) for body in bodies))
    verdicts = Counter(answer.json()["error"]["code"] if answer.is_error else "imported" for answer in answers)
    assert verdicts == {"imported": 9, "phone_number_exists": 1, "trunk_not_found": 1, "import_limit_exceeded": 1}
    imported = [answer for answer in answers if not answer.is_error]
    assert sorted(told(answer)[:2] for answer in imported) == [(10, left) for left in range(9)]
    assert {answer.json()["number"] for answer in imported} <= {body["phone_number"] for body in bodies}
    assert (await client.get("/v1/phone-numbers")).json()["pagination"]["total"] == 10


async def test_imports_go_on_when_the_window_ends(api, client):
    await set_limits(api.database, imports_per_minute=1)
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    assert (await client.post("/v1/phone-numbers/import", json=number(0, trunk))).status_code == 201
    assert (await client.post("/v1/phone-numbers/import", json=number(1, trunk))).status_code == 429
    await end_windows_in(api.database, 0)
    answer = await client.post("/v1/phone-numbers/import", json=number(1, trunk))
    assert (answer.status_code, told(answer)[:2]) == (201, (1, 0))


@pytest.fixture
async def processes(settings, own_cluster):
    """Two API processes on one database, whose crash the test may cause."""
    url = own_cluster.url("postgres")
    await asyncio.to_thread(migrate, url)
    database = Database(url)
    async with database.transaction() as conn:
        await seed_sandbox(conn)
    ports = [settings.http_port, *free_ports(1)]
    started = [Process(settings, url, http_port=port) for port in ports]
    try:
        for process in started:
            await asyncio.to_thread(process.until, "/healthz", 200)
        yield database, started
    finally:
        await database.close()
        for process in started:
            process.end()


async def in_parallel(processes: list[Process], requests: list[tuple[str, str, dict | None]]) -> list[httpx2.Response]:
    """Send requests to the processes in turn, 30 at once."""
    at_once = asyncio.Semaphore(30)
    headers = {"Authorization": f"Bearer {DOCUMENTED_TEST_KEY}"}
    async with httpx2.AsyncClient(timeout=60, headers=headers) as http:

        async def send(index: int, method: str, path: str, body: dict | None) -> httpx2.Response:
            async with at_once:
                return await http.request(method, processes[index % len(processes)].url + path, json=body)

        return await asyncio.gather(*(send(index, *request) for index, request in enumerate(requests)))


@pytest.mark.timeout(1200)
async def test_limits_are_exact_across_processes(processes):
    database, started = processes
    await set_limits(database, requests_per_hour=200)
    answers = await in_parallel(started, [("GET", "/v1/agents", None)] * 300)
    assert sorted(answer.status_code for answer in answers) == [200] * 200 + [429] * 100
    passed = [told(answer) for answer in answers if answer.status_code == 200]
    assert sorted(remaining for _, remaining, _ in passed) == list(range(200))
    assert len({reset for *_, reset in passed}) == 1


@pytest.mark.timeout(1200)
async def test_imports_are_exact_across_processes(processes):
    database, started = processes
    await set_limits(database, imports_per_minute=7)
    trunk = (await in_parallel(started, [("POST", "/v1/sip/trunks", TRUNK)]))[0].json()["id"]
    bodies = [number(n, trunk) for n in range(30)] + [number(n, "trunk_none") for n in range(30)]
    answers = await in_parallel(started, [("POST", "/v1/phone-numbers/import", body) for body in bodies])
    assert sorted(answer.status_code for answer in answers[:30]) == [201] * 7 + [429] * 23
    async with database.read() as conn:
        assert (await conn.execute(sa.text("SELECT count(*) FROM phone_numbers"))).scalar_one() == 7


@pytest.mark.timeout(1200)
async def test_a_crash_of_the_database_opens_new_windows(processes, own_cluster):
    """The windows are lost with it, and nobody is locked out."""
    database, started = processes
    await set_limits(database, requests_per_hour=5)
    codes = [answer.status_code for answer in await in_parallel(started, [("GET", "/v1/agents", None)] * 6)]
    assert sorted(codes) == [200] * 5 + [429]
    own_cluster.stop(signal.SIGQUIT)
    await asyncio.to_thread(own_cluster.start)
    answer = await asyncio.to_thread(started[0].until, "/v1/agents", 200)
    assert 0 <= told(answer)[1] <= 4
