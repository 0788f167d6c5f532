"""`Idempotency-Key`: one request, one deed, one answer; under races, across processes, and over kill -9."""

import asyncio
import random
import signal
import time
from contextlib import suppress
from types import SimpleNamespace

import httpx2
import msgspec
import pytest
import sqlalchemy as sa
from voxpria_server.auth import jobs, queries
from voxpria_server.auth.idempotency import Answer
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY
from voxpria_server.kit.db import Database

from server.tests.process import Process
from tests.ports import free_ports

AGENT = {"name": "A", "engine": "openai"}
TRUNK = {"name": "T", "provider": "generic", "config": {"server": "127.0.0.1", "port": 9}}


async def post(client, path: str, body: object, key: str = "k", **options):
    return await client.post(path, json=body, headers={"Idempotency-Key": key}, **options)


def is_replayed(answer) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"


async def count(database: Database, table: str) -> int:
    async with database.read() as conn:
        return (await conn.execute(sa.text(f"SELECT count(*) FROM {table}"))).scalar_one()


async def test_the_same_again_gets_the_first_answer(api, client):
    first, again = [await post(client, "/v1/agents", AGENT) for _ in range(2)]
    assert (first.status_code, is_replayed(first)) == (201, False)
    assert (again.status_code, is_replayed(again)) == (201, True)
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"] == again.headers["Original-Request"]
    assert "Original-Request" not in first.headers
    assert int(again.headers["X-RateLimit-Remaining"]) == int(first.headers["X-RateLimit-Remaining"]) - 1
    other = await post(client, "/v1/agents", AGENT, key="other")
    assert other.json()["id"] != first.json()["id"]
    assert await count(api.database, "agents") == 2


async def test_an_answer_that_an_older_release_kept_is_read():
    kept = msgspec.msgpack.encode({"status": 201, "headers": {}, "body": b"{}"})
    assert msgspec.msgpack.decode(kept, type=Answer).request_id == ""


async def test_the_same_key_with_another_body_conflicts(api, client):
    await post(client, "/v1/agents", AGENT)
    for answer in (
        await post(client, "/v1/agents", AGENT | {"name": "B"}),
        await post(client, "/v1/agents?x=1", AGENT),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert await count(api.database, "agents") == 1


async def test_a_key_is_of_one_account_mode_and_path(api, client):
    account = "acct_sandbox"
    callers = [client, await api.client(await api.new_key()), await api.client(await api.new_key(account_id=account))]
    callers.append(await api.client(await api.new_key(mode="live", account_id=account)))
    answers = [await post(caller, "/v1/agents", AGENT) for caller in callers]
    assert [is_replayed(answer) for answer in answers] == [False, False, True, False]  # the third: another key of ours
    assert (await post(client, "/v1/sip/trunks", TRUNK)).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
async def test_a_key_is_bounded(client, key):
    answer = await client.post("/v1/agents", json=AGENT, headers={"Idempotency-Key": key.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    assert answer.json()["error"]["details"]["field"] == "Idempotency-Key"
    assert (await post(client, "/v1/agents", AGENT, key="x" * 255)).status_code == 201


async def test_refusals_are_kept_too_but_not_for_want_of_right_or_time(api, client):
    first, again = [await post(client, "/v1/agents", {"name": "A"}) for _ in range(2)]
    assert (first.status_code, again.status_code, is_replayed(again)) == (400, 400, True)
    assert again.json() == first.json()
    await client.post("/v1/sip/trunks", json=TRUNK)
    first, again = [await post(client, "/v1/sip/trunks", TRUNK) for _ in range(2)]
    assert (first.status_code, again.json()["error"]["code"]) == (409, "trunk_name_exists")
    assert is_replayed(again)
    reader = await api.client(await api.new_key(scopes={"agents:read"}, account_id="acct_sandbox"))
    assert (await post(reader, "/v1/agents", AGENT, key="r")).status_code == 403
    assert (await post(client, "/v1/agents", AGENT, key="r")).status_code == 201
    assert (await post(reader, "/v1/agents", AGENT, key="r")).status_code == 403


async def test_a_failure_of_ours_or_a_limit_is_not_kept_and_undoes_all(api, client):
    """The change is refused by the database itself, after the claim; then by the limit, after the import."""
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("ALTER TABLE agents ADD CONSTRAINT trouble CHECK (name <> 'A')"))
    assert (await post(client, "/v1/agents", AGENT)).status_code == 500
    assert await count(api.database, "idempotency_keys") == 0
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("ALTER TABLE agents DROP CONSTRAINT trouble"))
        await conn.execute(sa.text("UPDATE plans SET imports_per_minute = 1"))
    answer = await post(client, "/v1/agents", AGENT)
    assert (answer.status_code, is_replayed(answer)) == (201, False)
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    bodies = [{"phone_number": f"+1555555000{n}", "trunk_id": trunk} for n in range(2)]
    codes = [
        (await post(client, "/v1/phone-numbers/import", body, key=str(n))).status_code for n, body in enumerate(bodies)
    ]
    assert codes == [201, 429]
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE rate_windows SET resets_at = now() WHERE kind = 'imports'"))
    again = [await post(client, "/v1/phone-numbers/import", body, key=str(n)) for n, body in enumerate(bodies)]
    assert [(answer.status_code, is_replayed(answer)) for answer in again] == [(201, True), (201, False)]


async def test_a_kept_answer_hides_its_secret(api, client):
    body = {"url": "http://127.0.0.1:9/", "events": ["call.ended"]}
    first, again = [await post(client, "/v1/webhooks", body) for _ in range(2)]
    secret = first.json()["secret"]
    assert again.json()["secret"] == secret
    async with api.database.read() as conn:
        kept = (await conn.execute(sa.text("SELECT * FROM idempotency_keys"))).one()
    assert secret.encode() not in kept.sealed_answer
    assert kept.fingerprint != kept.sealed_answer


async def test_answers_are_kept_for_a_day(api, client):
    first = await post(client, "/v1/agents", AGENT)
    await post(client, "/v1/agents", AGENT, key="young")

    async def age(hours: float) -> None:
        statement = "UPDATE idempotency_keys SET created_at = now() - make_interval(mins => :m) WHERE key = 'k'"
        async with api.database.transaction() as conn:
            await conn.execute(sa.text(statement), {"m": int(hours * 60)})

    await age(23.9)
    assert is_replayed(await post(client, "/v1/agents", AGENT))
    await age(24.1)
    second = await post(client, "/v1/agents", AGENT | {"name": "B"})  # not purged yet, but over
    assert (second.status_code, is_replayed(second)) == (201, False)
    assert second.json()["id"] != first.json()["id"]
    assert is_replayed(await post(client, "/v1/agents", AGENT | {"name": "B"}))
    await age(24.1)

    await jobs.purge(SimpleNamespace(additional_context={"database": api.database}), 0)
    async with api.database.read() as conn:
        assert (await conn.execute(sa.text("SELECT key FROM idempotency_keys"))).scalars().all() == ["young"]


async def test_other_methods_know_no_key(client):
    agent = (await client.post("/v1/agents", json=AGENT)).json()["id"]
    for name in ("B", "C"):
        headers = {"Idempotency-Key": "k"}
        answer = await client.patch(f"/v1/agents/{agent}", json={"name": name}, headers=headers)
        assert answer.json()["name"] == name


async def test_fifty_at_once_make_one(api, client):
    """More than there are connections; the others wait without one, and requests without a key go on beside them."""
    racers = [post(client, "/v1/sip/trunks", TRUNK) for _ in range(50)]
    others = [client.get("/v1/agents") for _ in range(4)]
    answers = await asyncio.gather(*racers, *others)
    assert {answer.status_code for answer in answers[50:]} == {200}
    assert {(answer.status_code, answer.content) for answer in answers[:50]} == {(201, answers[0].content)}
    assert sum(is_replayed(answer) for answer in answers[:50]) == 49
    assert await count(api.database, "trunks") == 1


async def test_one_that_waits_too_long_is_told_to_ask_again(api, client):
    """Another process has the key, and does not end; then ends without an answer."""
    holder = Database(api.database.url)
    claim = queries.Claim("acct_sandbox", "test", "POST /v1/agents", "k", b"")
    async with holder.transaction() as conn:
        await queries.take_claim(conn, claim, 24)
        answers = await asyncio.gather(*(post(client, "/v1/agents", AGENT) for _ in range(2)))
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
            assert int(answer.headers["Retry-After"]) > 0
        waiting = asyncio.create_task(post(client, "/v1/agents", AGENT))
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        await conn.rollback()
    answer = await waiting
    assert (answer.status_code, is_replayed(answer)) == (201, False)
    await holder.close()


async def _is_kept_back_by(api, slow: list[asyncio.Task]) -> bool:
    """Tell whether another account's POST waits for those."""
    other = await api.client(await api.new_key())
    answer = await post(other, "/v1/webhooks", {"url": "http://127.0.0.1:9/", "events": ["call.ended"]})
    assert answer.status_code == 201, answer.text
    return any(task.done() for task in slow)


async def test_who_waits_for_durable_work_keeps_back_nobody(api, client, monkeypatch):
    """More than there are connections for such; each goes on until an edge comes, and none does."""
    monkeypatch.setattr("voxpria_server.numbers.endpoints.WAIT_SECONDS", 45.0)
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    body = {"phone_number": "+15555550001", "trunk_id": trunk}
    path = f"/v1/phone-numbers/{(await client.post('/v1/phone-numbers/import', json=body)).json()['id']}/provision"
    slow = [asyncio.create_task(post(client, path, {}, key=f"k{n}")) for n in range(25)]
    await asyncio.wait(slow, timeout=1)
    assert not await _is_kept_back_by(api, slow)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_the_many_of_one_account_keep_back_nobody(api, client):
    async with api.database.transaction() as holder:
        await holder.execute(sa.text("LOCK TABLE agents IN SHARE MODE"))  # who makes an agent, waits
        slow = [asyncio.create_task(post(client, "/v1/agents", AGENT, key=f"k{n}")) for n in range(25)]
        await until_blocked(api.database, api.database.most_waiting_of_one)
        assert not await _is_kept_back_by(api, slow)
    assert {answer.status_code for answer in await asyncio.gather(*slow)} == {201}


async def test_an_answer_that_was_waited_for_is_kept(client):
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    answers = await asyncio.gather(*(post(client, f"/v1/sip/trunks/{trunk}/test", {}) for _ in range(10)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert sum(is_replayed(answer) for answer in answers) == 9
    other = await post(client, f"/v1/sip/trunks/{trunk}/test", {"x": 1})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


HEADERS = {"Authorization": f"Bearer {DOCUMENTED_TEST_KEY}"}


@pytest.fixture
def two_processes(settings, database_url):
    port = free_ports(1)[0]
    started = [Process(settings, database_url), Process(settings, database_url, http_port=port)]
    try:
        for process in started:
            process.until("/v1/agents", 200)
        yield started
    finally:
        for process in started:
            process.end(signal.SIGKILL)


@pytest.mark.timeout(1200)
async def test_fifty_at_once_on_two_processes_make_one(two_processes, database):
    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as http:
        racers = [post(http, f"{two_processes[n % 2].url}/v1/agents", AGENT) for n in range(50)]
        answers = await asyncio.gather(*racers)
    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert sum(is_replayed(answer) for answer in answers) == 49
    assert await count(database, "agents") == 1


@pytest.mark.timeout(1200)
async def test_who_waits_for_another_process_holds_up_nobody(settings, database_url, database):
    """Four keys are under way at one process, and asked for again at another that has four connections for such."""
    first = Process(settings, database_url, VOXPRIA_DATABASE_POOL_SIZE="8")  # four of one account at once
    other = Process(settings, database_url, http_port=free_ports(1)[0], VOXPRIA_DATABASE_POOL_SIZE="2")
    keys = [f"k{n}" for n in range(4)]
    try:
        for process in (first, other):
            await asyncio.to_thread(process.until, "/v1/agents", 200)
        async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as http:
            async with database.transaction() as holder:
                await holder.execute(sa.text("LOCK TABLE agents IN SHARE MODE"))  # who makes an agent, waits
                asked = [asyncio.create_task(post(http, f"{first.url}/v1/agents", AGENT, key=key)) for key in keys]
                await until_blocked(database, len(keys))
                more = [
                    asyncio.create_task(post(http, f"{other.url}/v1/agents", AGENT, key=key))
                    for key in keys
                    for _ in range(12)
                ]
                for n in range(8):
                    answer = await post(http, f"{other.url}/v1/sip/trunks", TRUNK | {"name": f"T{n}"}, key=f"t{n}")
                    assert answer.status_code == 201, answer.text
            await asyncio.gather(*asked, *more)
            for key in keys:  # on a slow machine some were told to ask again
                answer = await post(http, f"{other.url}/v1/agents", AGENT, key=key)
                assert answer.status_code == 201, answer.text
        assert await count(database, "agents") == len(keys)
    finally:
        for process in (first, other):
            process.end(signal.SIGKILL)


async def until_blocked(database: Database, many: int) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(120):
        while True:
            async with database.read() as conn:
                if (await conn.execute(sa.text(statement))).scalar_one() == many:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.timeout(1200)
async def test_kill_9_between_deed_and_record_leaves_both_or_neither(settings, database_url, database):
    """A client that asks again with the same keys, as it must, ends with each thing made once."""
    keys: set[str] = set()

    async def ask(http, process, key: str) -> httpx2.Response | None:
        keys.add(key)
        path, body = ("agents", AGENT) if key.startswith("a") else ("sip/trunks", TRUNK | {"name": key})
        with suppress(httpx2.TransportError):
            return await post(http, f"{process.url}/v1/{path}", body, key=key)
        return None

    rng = random.Random(7)
    first_answers: dict[str, bytes] = {}
    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as http:
        for turn in range(2):
            process = Process(settings, database_url)
            await asyncio.to_thread(process.until, "/v1/agents", 200)
            names = [f"{kind}{turn}-{n}" for kind in "at" for n in range(15)]
            asked = [asyncio.create_task(ask(http, process, name)) for name in names]
            await asyncio.wait(asked, timeout=rng.uniform(0.1, 0.5))
            await asyncio.to_thread(process.end, signal.SIGKILL)
            for name, answer in zip(names, await asyncio.gather(*asked), strict=True):
                if answer is not None and answer.status_code == 201:
                    first_answers[name] = answer.content
        process = Process(settings, database_url)
        await asyncio.to_thread(process.until, "/v1/agents", 200)
        for name in sorted(keys):
            deadline = time.monotonic() + 240
            while (answer := await ask(http, process, name)) is None or answer.status_code in {409, 503}:
                assert time.monotonic() < deadline, answer and answer.text
                await asyncio.sleep(0.1)
            assert answer.status_code == 201
            assert first_answers.get(name, answer.content) == answer.content
        process.end()
    assert await count(database, "agents") == len([key for key in keys if key.startswith("a")]) == 30
    assert await count(database, "trunks") == 30
