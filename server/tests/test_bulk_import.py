"""Many numbers at once, as a client of the API sees it: verdicts, the limit, dry runs, CSV, and queued imports."""

import asyncio
import json
import signal
import time
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from psycopg.rows import dict_row
from voxpria_server.errors import ApiError
from voxpria_server.numbers import bulk, endpoints, service

from server.tests.process import Process

PATH = "/v1/phone-numbers/bulk-import"
TRUNK = {"name": "T", "provider": "elevenlabs", "credentials": {"username": "u", "password": "p"}}


def e164(index: int) -> str:
    return f"+1555555{index:04}"


async def make_trunk(client, **changes) -> str:
    answer = await client.post("/v1/sip/trunks", json=TRUNK | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def count_of_numbers(client) -> int:
    return (await client.get("/v1/phone-numbers")).json()["pagination"]["total"]


async def until_completed(client, import_id: str, seconds: float = 90) -> dict:
    async with asyncio.timeout(seconds):
        while True:
            found = (await client.get(f"{PATH}/{import_id}")).json()
            if found["status"] == "completed":
                return found
            await asyncio.sleep(0.05)


def code_of(result: dict) -> str | None:
    return result["error"] and result["error"]["code"]


def as_big_as_may_be(trunk_id: str, index: int) -> dict:
    """A row whose every text is as long as it may be, of characters that JSON can escape with twelve bytes each."""
    config = {"first_message": "\N{GRINNING FACE}" * 1000, "language": "en-US", "max_duration": 86400}
    return {"phone_number": e164(index), "trunk_id": trunk_id, "agent_id": "a" * 200, "config": config}


async def test_a_thousand_rows_fit_whatever_they_hold(api, client, settings):
    trunk_id = await make_trunk(client)
    rows = [as_big_as_may_be(trunk_id, index) for index in range(1000)]
    body = json.dumps({"numbers": rows, "dry_run": True}).encode()
    assert 12_000_000 < len(body) < endpoints.BULK_MAX_BYTES
    answer = await client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["imported"] == 1000
    lines = ["phone_number,trunk_id,agent_id,first_message"]
    lines += [f"{row['phone_number']},{trunk_id},{row['agent_id']},{row['config']['first_message']}" for row in rows]
    csv = "\n".join(lines).encode()
    assert len(csv) > 4_000_000
    answer = await client.post(f"{PATH}?dry_run=true", content=csv, headers={"content-type": "text/csv"})
    assert answer.json()["imported"] == 1000
    assert await count_of_numbers(client) == 0


async def test_more_than_that_is_too_large_and_elsewhere_far_less_is(client):
    too_long = b" " * endpoints.BULK_MAX_BYTES + b"{}"
    for path, body in ((PATH, too_long), ("/v1/phone-numbers/import", b" " * (1 << 20) + b"{}")):
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large"), path


async def test_nobody_without_a_key_has_a_long_body_read(api):
    stranger = await api.client(None)
    answer = await stranger.post(PATH, content=b"x" * endpoints.BULK_MAX_BYTES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "api_key_missing")


async def test_every_row_has_its_verdict(client, api):
    trunk_id = await make_trunk(client)
    other = await api.client(await api.new_key())
    stranger = await make_trunk(other)
    not_mine = (await other.post("/v1/agents", json={"name": "A", "engine": "openai"})).json()["id"]
    carrier = await make_trunk(client, name="C", provider="generic", config={"server": "127.0.0.1", "port": 9})
    await client.post("/v1/phone-numbers/import", json={"phone_number": e164(9), "trunk_id": trunk_id})
    rows = [
        ({"phone_number": e164(1), "agent_id": "agent_theirs"}, None),
        ({"phone_number": e164(1)}, "phone_number_exists"),
        ({"phone_number": e164(9)}, "phone_number_exists"),
        ({"phone_number": "12125551234"}, "invalid_phone_number"),
        ({"phone_number": "+1" + "2" * 80}, "invalid_phone_number"),
        ({}, "missing_required_field"),
        ({"phone_number": 5}, "invalid_parameter"),
        ({"phone_number": "+1555555\0001"}, "invalid_phone_number"),
        ({"phone_number": e164(2), "surprise": 1}, "invalid_parameter"),
        ({"phone_number": e164(2), "trunk_id": stranger}, "trunk_not_found"),
        ({"phone_number": e164(2), "trunk_id": "trunk_none"}, "trunk_not_found"),
        ({"phone_number": e164(2), "trunk_id": carrier, "agent_id": not_mine}, "agent_not_found"),
        ({"phone_number": e164(2), "engine": "openai"}, "invalid_parameter"),
        ({"phone_number": e164(2), "config": {"max_duration": 0}}, "invalid_parameter"),
        ({"phone_number": e164(2), "config": {"first_message": "a\0b"}}, "invalid_parameter"),
        ({"phone_number": e164(3), "config": {"max_duration": 60}}, None),
    ]
    answer = await client.post(PATH, json={"trunk_id": trunk_id, "numbers": [row for row, _ in rows]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [code_of(result) for result in body["results"]] == [code for _, code in rows]
    assert (body["success"], body["imported"], body["failed"]) == (False, 2, len(rows) - 2)
    first = body["results"][0]
    assert first == {"row": 1, "phone_number": e164(1), "status": "success", "id": first["id"], "error": None}
    assert (await client.get(f"/v1/phone-numbers/{first['id']}")).json()["agent_id"] == "agent_theirs"
    assert body["results"][3]["error"]["details"] == {"field": "phone_number", "provided": "12125551234"}
    assert await count_of_numbers(client) == 3
    assert await count_of_numbers(other) == 0


async def test_a_batch_takes_no_more_statements_than_a_row(api, client):
    carrier = await make_trunk(client, provider="generic", config={"server": "127.0.0.1", "port": 9})
    taken: list[str] = []
    sa.event.listen(api.database._engine.sync_engine, "before_cursor_execute", lambda *given: taken.append(given[2]))
    counts = []
    for rows in ([e164(0)], [e164(index) for index in range(1, 9)]):
        taken.clear()
        body = {"trunk_id": carrier, "numbers": [{"phone_number": number} for number in rows]}
        assert (await client.post(PATH, json=body)).json()["success"] is True
        counts.append(len([each for each in taken if "INSERT INTO phone_numbers" in each or "rate_windows" in each]))
    assert counts[0] == counts[1] == 3
    in_hand = """
        SELECT count(*) FROM phone_numbers
        WHERE status <> 'provisioning' OR edge_awaited_since IS NOT NULL
            OR id IN (SELECT args ->> 'number_id' FROM procrastinate_jobs WHERE task_name = $1)
    """  # a job that is done is gone, and the number says how far it has come
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql(in_hand, (service.PROVISION_TASK,))).scalar_one() == 9


async def test_the_references_example_succeeds(client):
    agent = (await client.post("/v1/agents", json={"name": "A", "engine": "elevenlabs"})).json()["id"]
    numbers = [{"phone_number": number, "agent_id": agent} for number in ("+12125551234", "+12125555678")]
    body = {"trunk_id": await make_trunk(client), "engine": "elevenlabs", "numbers": numbers}
    answer = (await client.post(PATH, json=body)).json()
    assert (answer["success"], answer["imported"], answer["failed"]) == (True, 2, 0)
    assert [(row["phone_number"], row["status"]) for row in answer["results"]] == [
        ("+12125551234", "success"),
        ("+12125555678", "success"),
    ]


async def test_rows_past_the_limit_say_so_and_failed_ones_take_no_place(client):
    trunk_id = await make_trunk(client)
    rows = [{"phone_number": "wrong"}] * 5 + [{"phone_number": e164(i)} for i in range(12)] + [{"phone_number": "bad"}]
    body = (await client.post(PATH, json={"trunk_id": trunk_id, "numbers": rows})).json()
    codes = [code_of(result) for result in body["results"]]
    assert codes == ["invalid_phone_number"] * 5 + [None] * 10 + ["import_limit_exceeded"] * 2 + [
        "invalid_phone_number"
    ]
    assert await count_of_numbers(client) == 10
    again = await client.post("/v1/phone-numbers/import", json={"phone_number": e164(50), "trunk_id": trunk_id})
    assert (again.status_code, again.json()["error"]["code"]) == (429, "import_limit_exceeded")


async def test_a_dry_run_judges_and_changes_nothing(client):
    trunk_id = await make_trunk(client)
    rows = [{"phone_number": e164(i % 15)} for i in range(16)]
    body = {"trunk_id": trunk_id, "numbers": rows, "dry_run": True}
    for _ in range(2):
        answer = (await client.post(PATH, json=body)).json()
        assert (answer["dry_run"], answer["imported"], answer["failed"]) == (True, 15, 1)
        assert code_of(answer["results"][15]) == "phone_number_exists"
        assert not any(result["id"] for result in answer["results"])
    assert await count_of_numbers(client) == 0
    answer = await client.post(PATH, json={"trunk_id": trunk_id, "numbers": rows[:10]})
    assert answer.json()["success"] is True
    assert answer.headers["x-ratelimit-remaining"] == "0"


async def test_csv_is_taken_too(client):
    trunk_id, own = await make_trunk(client), await make_trunk(client, name="Own")
    text = (
        "\ufeffphone_number,agent_id,trunk_id,first_message,max_duration\r\n"
        f'{e164(1)},agent_x,,"Hello, ""you""\nthere",90\r\n'
        f"{e164(2)},,{own},,\r\n"
        f"{e164(3)},,,,soon\r\n"
        f"{e164(4)},,,,,surplus\r\n"
        "+1,,,,\r\n"
    )
    headers = {"content-type": "text/csv; charset=utf-8"}
    answer = await client.post(f"{PATH}?trunk_id={trunk_id}&engine=elevenlabs", content=text.encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    codes = [code_of(result) for result in results]
    assert codes == [None, None, "invalid_parameter", "invalid_parameter", "invalid_phone_number"]
    row = (await client.get(f"/v1/phone-numbers/{results[0]['id']}")).json()
    assert row["config"]["first_message"] == 'Hello, "you"\nthere'
    assert (row["config"]["max_duration"], row["agent_id"], row["trunk_id"]) == (90, "agent_x", trunk_id)
    assert (await client.get(f"/v1/phone-numbers/{results[1]['id']}")).json()["trunk_id"] == own


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'{"numbers": []}', "application/json"),
        (b'{"numbers": [1]}', "application/json"),
        (b'{"numbers": [{}], "queue": "yes"}', "application/json"),
        (b'{"numbers": [{"phone_number": "\\ud800"}]}', "application/json"),
        (b'{"numbers": [{"phone_number": NaN}]}', "application/json"),
        (b'{"numbers": ' + b"[" * 100_000, "application/json"),
        (json.dumps({"numbers": [{}] * 1001}).encode(), "application/json"),
        (b"phone_number\n" + b"+12125551234\n" * 1001, "text/csv"),
        (b"number\n+12125551234\n", "text/csv"),
        (b"phone_number,secret\n+12125551234,x\n", "text/csv"),
        (b"phone_number,phone_number\n1,2\n", "text/csv"),
        (b'phone_number\n"+1\n', "text/csv"),
        (b"phone_number\n\xff\n", "text/csv"),
        (b"", "text/csv"),
        (b"phone_number=1", "application/x-www-form-urlencoded"),
    ],
)
async def test_what_is_no_batch_is_refused(client, content, kind):
    answer = await client.post(PATH, content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter"), answer.text
    assert await count_of_numbers(client) == 0


async def test_a_queued_import_goes_on_as_the_limit_allows(client, api):
    trunk_id = await make_trunk(client)
    rows = [{"phone_number": e164(i)} for i in range(14)] + [{"phone_number": "bad"}, {"phone_number": e164(3)}]
    answer = await client.post(PATH, json={"trunk_id": trunk_id, "numbers": rows, "queue": True})
    assert answer.status_code == 202, answer.text
    found = answer.json()
    assert (found["status"], found["total"], found["pending"]) == ("queued", 16, 16)
    async with asyncio.timeout(300):
        while (now := (await client.get(f"{PATH}/{found['id']}")).json())["imported"] < 10:
            await asyncio.sleep(0.05)
    assert (now["status"], now["pending"]) == ("running", 6)
    assert now["success"] is None
    await _the_minute_passes(api)
    done = await until_completed(client, found["id"])
    assert (done["success"], done["imported"], done["failed"], done["pending"]) == (False, 14, 2, 0)
    assert [code_of(row) for row in done["results"][14:]] == ["invalid_phone_number", "phone_number_exists"]
    assert await count_of_numbers(client) == 14
    other = await api.client(await api.new_key())
    live = await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))
    for intruder in (other, live):
        answer = await intruder.get(f"{PATH}/{found['id']}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "import_not_found")


async def _the_minute_passes(api) -> None:
    """Once the job has put itself off, bring its time here."""
    put_off = "UPDATE procrastinate_jobs SET scheduled_at = now() WHERE status = 'todo' AND task_name = $1 RETURNING id"
    async with asyncio.timeout(90):
        while True:
            async with api.database.transaction() as conn:
                await conn.exec_driver_sql("UPDATE rate_windows SET resets_at = now() - interval '1 s'")
                if (await conn.exec_driver_sql(put_off, (bulk.BULK_TASK,))).all():
                    return
            await asyncio.sleep(0.05)


async def test_two_batches_of_the_same_numbers_at_once_make_each_once(client):
    trunk_id = await make_trunk(client)
    rows = [{"phone_number": e164(i)} for i in range(5)]
    single = {"phone_number": e164(4), "trunk_id": trunk_id}
    answers = await asyncio.gather(
        client.post(PATH, json={"trunk_id": trunk_id, "numbers": rows}),
        client.post(PATH, json={"trunk_id": trunk_id, "numbers": rows[::-1]}),
        *(client.post("/v1/phone-numbers/import", json=single) for _ in range(3)),
    )
    assert all(answer.status_code in {200, 201, 409} for answer in answers), [answer.text for answer in answers]
    assert await count_of_numbers(client) == 5


@pytest.mark.unit
@given(st.binary(max_size=300) | st.text(alphabet='phone_number,"\r\n+1 ', max_size=200).map(str.encode))
def test_any_bytes_are_a_batch_or_refused(data):
    for parse in (bulk.parse_json, lambda body: bulk.parse_csv(b"phone_number\n" + body, {})):
        with suppress(ApiError, RequestValidationError):
            assert parse(data).numbers


def test_a_queued_import_survives_kill_9_at_any_moment(settings, own_cluster):
    """The process is killed again and again while it imports; in the end every row was imported once."""
    url = own_cluster.url("postgres")
    count = 300
    environment = {"VOXPRIA_IMPORTS_PER_MINUTE": "100000"}
    process = Process(settings, url, **environment)
    process.until("/v1/agents", 200)
    trunk_id = process.post("/v1/sip/trunks", TRUNK | {"config": {"server": "127.0.0.1", "port": 9}})["id"]
    rows = [{"phone_number": e164(i)} for i in range(count - 1)] + [{"phone_number": e164(0)}]
    found = process.post(PATH, {"trunk_id": trunk_id, "numbers": rows, "queue": True})
    for wanted in (20, 90, 200):
        _until(url, "SELECT count(*) FROM bulk_import_rows WHERE status <> 'pending'", wanted)
        process.end(signal.SIGKILL)
        left = _one(url, "SELECT count(*) FROM bulk_import_rows WHERE status = 'pending'")
        assert left > 0, "it was over before it was killed: this shows nothing"
        process = Process(settings, url, **environment)
        process.until("/v1/agents", 200)
    deadline = time.monotonic() + 300
    while (now := process.get(f"{PATH}/{found['id']}").json())["status"] != "completed":
        assert time.monotonic() < deadline, now["pending"]
        time.sleep(0.2)
    assert (now["imported"], now["failed"], now["pending"]) == (count - 1, 1, 0)
    assert now["results"][-1]["error"]["code"] == "phone_number_exists"
    with psycopg.connect(url, row_factory=dict_row) as connection:
        numbers = {row["id"]: row["e164"] for row in connection.execute("SELECT id, e164 FROM phone_numbers")}
    assert numbers == {row["id"]: row["phone_number"] for row in now["results"][:-1]}
    process.end()


def _one(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchone()[0]


def _until(url: str, query: str, wanted: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while _one(url, query) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)
