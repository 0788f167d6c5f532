"""What edges tell: each fact once, whatever is repeated, reordered, broken or lost on the way."""

import asyncio
import itertools
from contextlib import AsyncExitStack
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from voxpria_routing import snapshot as routes
from voxpria_routing.edge_api import OpenCalls, Part, Status
from voxpria_server.calls import service
from voxpria_server.calls.jobs import blueprint
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.ids import new_id
from voxpria_server.main import create_app
from voxpria_server.migrations import migrate

from server.tests.conftest import Api
from server.tests.edge_client import DAY, NUMBER, Story, connect

TRUNK = {"name": "T", "provider": "generic", "credentials": {}, "config": {"server": "127.0.0.1", "port": 9}}


@pytest.fixture
async def edge(api):
    return await connect(api)


async def record(client, call_id: str) -> dict:
    answer = await client.get(f"/v1/calls/{call_id}")
    assert answer.status_code == 200, answer.text
    call = answer.json()
    del call["recording_url"], call["metadata"]["caller_location"]  # signed anew each time; found out by a job
    return call


async def events_of(client) -> list[tuple[str, str]]:
    found = (await client.get("/v1/events?per_page=100")).json()["data"]
    return [(event["event"], event["data"]["call_id"]) for event in reversed(found)]


@pytest.mark.parametrize("token", [None, "wrong", "", "test-edge-token-and-more", "vox_sk_test_abc123xyz789"])
async def test_without_the_token_nothing_is_told_or_taken(api, token):
    client = await api.client(token)
    recording = f"calls/{new_id('call')}/recording"
    routes = ("GET snapshot?edge_id=e", "POST events", "POST status", "POST open-calls", f"PUT {recording}")
    for method, path in map(str.split, routes):
        answer = await client.request(method, f"/edge/v1/{path}", content=b"{}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_edge_token"), path


async def test_a_call_from_its_first_to_its_last_event(client, edge):
    story = Story()
    assert await edge.send(story.invited(), story.ringing()) == []
    assert (await record(client, story.id))["status"] == "in-progress"
    await edge.send(story.answered(), story.ended(), story.measured())
    call = await record(client, story.id)
    assert (call["status"], call["duration"], call["sip_code"], call["end_cause"], call["ended_by"]) == (
        *("completed", 7, 200, "hangup"),
        "caller",
    )
    assert (call["started_at"], call["answered_at"], call["ended_at"]) == (
        *("2026-03-04T05:06:07Z", "2026-03-04T05:06:08Z"),
        "2026-03-04T05:06:15Z",
    )
    assert await events_of(client) == [("call.started", story.id), ("call.ended", story.id)]


async def test_repeated_batches_change_nothing(client, edge):
    story = Story()
    batch = story.completed()
    await edge.send(*batch)
    before = await record(client, story.id), await events_of(client)
    await edge.send(*batch, *batch)
    await edge.send(*reversed(batch))
    assert (await record(client, story.id), await events_of(client)) == before


async def test_every_order_of_a_calls_events_gives_the_same_record(client, edge):
    records = []
    for order in itertools.permutations(range(5)):
        story = Story()
        whole = [*story.completed(), story.measured()]
        for position in order:
            await edge.send(whole[position])
        call = await record(client, story.id)
        records.append({name: value for name, value in call.items() if name != "id"})
        told = [event for event, call_id in await events_of(client) if call_id == story.id]
        assert told == ["call.started", "call.ended"]
    assert len(records) == 120
    assert all(call == records[0] for call in records)


async def test_a_number_counts_each_call_once(api, client, edge):
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    body = {"phone_number": NUMBER, "trunk_id": trunk}
    number = (await client.post("/v1/phone-numbers/import", json=body)).json()["id"]
    answered, busy = (Story(start, number_id=number) for start in (DAY, DAY + timedelta(hours=1)))
    for _ in range(3):
        await edge.send(*answered.completed()[:2], *busy.failed())
    batch = answered.completed()
    await edge.send(*batch)
    await edge.send(*batch, answered.ended(seconds=500))
    stats = (await client.get(f"/v1/phone-numbers/{number}")).json()["stats"]
    assert stats == {"total_calls": 2, "total_minutes": stats["total_minutes"], "last_call_at": "2026-03-04T06:06:07Z"}
    assert abs(stats["total_minutes"] - 7 / 60) < 0.06


async def test_a_second_ending_changes_nothing(client, edge):
    story = Story()
    await edge.send(*story.completed())
    before = await record(client, story.id), await events_of(client)
    await edge.send(story.ended(seconds=99, cause="lost", by="edge"))
    after = await record(client, story.id), await events_of(client)
    assert [e["type"] for e in after[0].pop("events")] == [e["type"] for e in before[0].pop("events")] + ["ended"]
    assert after == before


async def test_an_unanswered_call_fails(client, edge):
    story = Story()
    await edge.send(*story.failed())
    call = await record(client, story.id)
    assert (call["status"], call["duration"], call["sip_code"], call["ended_by"]) == ("busy", 0, 486, "agent")
    assert await events_of(client) == [("call.started", story.id), ("call.failed", story.id)]


async def test_a_refused_call_was_never_started(client, edge):
    story = Story()
    refused = story.invited(refusal="number_not_found")
    await edge.send(refused, story.ended(0, "refused", "edge", 404, "Not Found"))
    call = await record(client, story.id)
    assert (call["status"], call["sip_code"]) == ("failed", 404)
    assert call["explanation"]["summary"] == f"{NUMBER} goes to the agent."
    assert await events_of(client) == [("call.failed", story.id)]


def broken(story: Story, **changes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(msgspec.to_builtins(story.ringing()) | changes))


async def test_a_bad_event_blocks_no_other(client, edge):
    good, stranger, nul = Story(), Story(account_id="acct_nobody"), Story(to="+1555\x00")
    bad = [
        broken(good, id="evt_kind", kind="exploded"),
        broken(good, id="evt_time", at="2026-01-02T03:04:05"),
        broken(good, id="evt_call", call_id="../../etc/passwd"),
        broken(good, id="evt_long" + "g" * 60),
        broken(good, id="evt_huge", padding="x" * 70_000),
        msgspec.Raw(b'"nonsense"'),
    ]
    invited, unknown, unkeepable = good.invited(), stranger.invited(), nul.invited()
    events = [*bad[:3], invited, unknown, *bad[3:], unkeepable, good.answered(), good.ended()]
    answer = await edge.post("events", {"edge_id": "edge_1", "events": events})
    assert answer.status_code == 200, answer.text
    rejected = {entry["id"]: entry["error"] for entry in answer.json()["rejected"]}
    assert set(rejected) == {
        *("evt_kind", "evt_time", "evt_call", ("evt_long" + "g" * 60)[:64], "evt_huge", ""),
        *(unknown.id, unkeepable.id),
    }
    assert rejected[unknown.id] == "the account is unknown"
    assert all(rejected.values())
    assert (await record(client, good.id))["status"] == "completed"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"edge_id":"e"}', b'{"edge_id":"","events":[]}'])
async def test_what_is_no_batch_is_refused(edge, body):
    answer = await edge.post("events", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")


async def test_a_batch_has_a_bound(edge):
    answer = await edge.post("events", b'{"edge_id":"' + b"e" * 9_000_000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    answer = await edge.post("events", {"edge_id": "e", "events": [1] * 1001})
    assert answer.status_code == 400


async def test_a_failing_database_takes_nothing(api, client, edge):
    """A failure in the middle of a batch: nothing of it is kept, and all of it is when it is sent again."""
    async with api.database.transaction() as conn:
        await conn.execute(
            sa.text(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
            )
        )
        await conn.execute(
            sa.text(
                "CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON calls FOR EACH ROW"
                " WHEN (NEW.status = 'completed') EXECUTE FUNCTION fail()"
            )
        )
    first, second = Story(), Story()
    batch = [first.invited(), *second.completed()]
    answer = await edge.post("events", {"edge_id": "edge_1", "events": batch})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (await client.get(f"/v1/calls/{first.id}")).status_code == 404
    assert await events_of(client) == []
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("DROP TRIGGER fail ON calls"))
    assert await edge.send(*batch) == []
    assert (await record(client, second.id))["status"] == "completed"


async def test_a_lost_database_is_waited_out(settings, own_cluster):
    url = own_cluster.url("postgres")
    await asyncio.to_thread(migrate, url)
    app = create_app(settings.model_copy(update={"database_url": SecretStr(url)}))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        api = Api(app, stack)
        edge, story = await connect(api), Story()
        await edge.send(story.invited())
        own_cluster.stop()
        rest = {"edge_id": "edge_1", "events": [story.answered(), story.ended()]}
        assert (await edge.post("events", rest)).status_code == 503
        own_cluster.start()
        assert (await edge.post("events", rest)).status_code == 200
        client = await api.client("vox_sk_test_abc123xyz789")
        assert (await record(client, story.id))["status"] == "completed"


async def test_edges_that_report_at_once_do_not_get_in_each_others_way(api, client, edge):
    stories = [Story() for _ in range(8)]
    halves = [[story.invited() for story in stories], [event for s in stories for event in (s.answered(), s.ended())]]
    others = [await connect(api, f"edge_{n}") for n in range(4)]
    batches = [half for half in halves for _ in range(2)]
    await asyncio.gather(
        *(
            one.send(*(batch if n % 2 else batch[::-1]))
            for n, (one, batch) in enumerate(zip(others, batches, strict=True))
        )
    )
    calls = (await client.get("/v1/calls?status=completed")).json()
    assert calls["pagination"]["total"] == 8
    assert len(await events_of(client)) == 16


async def test_calls_that_the_edge_no_longer_knows_are_ended(client, edge):
    known, lost, ringing, later, elsewhere = (
        Story(DAY),
        Story(DAY),
        Story(DAY),
        Story(DAY + timedelta(hours=1)),
        Story(DAY, edge_id="edge_2"),
    )
    for story in (known, lost, ringing, later, elsewhere):
        await edge.send(story.invited())
    await edge.send(known.answered(), lost.answered())
    as_of = DAY + timedelta(seconds=31)
    report = OpenCalls(edge_id="edge_1", as_of=as_of, call_ids=(known.id, new_id("call")))
    for _ in range(2):
        assert (await edge.post("open-calls", report)).status_code == 204
    call = await record(client, lost.id)
    assert (call["status"], call["duration"], call["end_cause"], call["ended_by"]) == ("completed", 30, "lost", "edge")
    assert "lost the call's state" in call["explanation"]["summary"]
    call = await record(client, ringing.id)
    assert (call["status"], call["sip_code"], call["end_cause"]) == ("failed", None, "lost")
    for story in (known, later, elsewhere):
        assert (await record(client, story.id))["status"] == "in-progress"
    assert [e for e in await events_of(client) if e[0] != "call.started"] == [
        ("call.ended", lost.id),
        ("call.failed", ringing.id),
    ]


async def test_calls_of_a_silent_edge_are_swept(api, client, edge):
    overdue, recent = Story(utc_now() - timedelta(seconds=200)), Story(utc_now() - timedelta(seconds=100))
    await edge.send(overdue.invited(), overdue.answered(), recent.invited(), recent.answered())
    links = api.app.state.recording_links

    async def sweep(unseen_seconds):
        async with api.database.transaction() as conn:
            return await service.sweep(links, conn, grace_seconds=120, unseen_seconds=unseen_seconds)

    await edge.post("status", Status(edge_id="edge_1", applied_version=1, parts={}, open_calls=2, unsent_events=0))
    assert await sweep(60) == 0
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE edges SET seen_at = now() - interval '61 s'"))
    assert await sweep(60) == 0, "the edge has just told of the call"
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE calls SET updated_at = now() - interval '61 s'"))
    assert await sweep(60) == 1
    assert await sweep(60) == 0
    call = await record(client, overdue.id)
    assert (call["status"], call["duration"], call["end_cause"]) == ("completed", 60, "lost")
    assert "not been heard of since" in call["explanation"]["summary"]
    assert (await record(client, recent.id))["status"] == "in-progress"


def test_the_sweep_runs_by_itself():
    times = {each.task.name: each.cron for each in blueprint.periodic_registry.periodic_tasks.values()}
    assert times["calls:sweep"] == "* * * * *"


async def test_the_snapshot_is_waited_for(client, edge):
    first = await edge.client.get("/edge/v1/snapshot?edge_id=edge_1&after=0&wait_seconds=5")
    version = routes.decode(first.content).version
    same = await edge.client.get(f"/edge/v1/snapshot?edge_id=edge_1&after={version}&wait_seconds=0.2")
    assert (same.status_code, same.content) == (304, b"")
    waiting = asyncio.create_task(edge.client.get(f"/edge/v1/snapshot?edge_id=edge_1&after={version}&wait_seconds=20"))
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    async with asyncio.timeout(5):
        changed = routes.decode((await waiting).content)
    assert changed.version > version
    assert trunk in changed.trunks


@pytest.mark.parametrize("query", ["", "edge_id=../x", "edge_id=e&after=-1", "edge_id=e&wait_seconds=26"])
async def test_a_bad_question_for_the_snapshot_is_refused(edge, query):
    assert (await edge.client.get(f"/edge/v1/snapshot?{query}")).status_code == 400


async def test_status_and_acknowledged_version_are_kept(api, edge):
    parts = {"kamailio": Part(is_up=True), "rtpengine": Part(is_up=False, detail="gone")}
    status = Status(edge_id="edge_1", applied_version=3, parts=parts, open_calls=2, unsent_events=1)
    assert (await edge.post("status", status)).status_code == 204
    await edge.client.get("/edge/v1/snapshot?edge_id=edge_1&after=7")
    async with api.database.read() as conn:
        row = (await conn.execute(sa.text("SELECT * FROM edges"))).one()
    assert (row.applied_version, row.open_calls, row.parts["rtpengine"]["detail"]) == (7, 2, "gone")
    assert (await edge.post("status", b"{}")).status_code == 400
