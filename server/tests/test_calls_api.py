"""The call log as customers see it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from voxpria_routing.decision import Explanation
from voxpria_routing.events import Direction
from voxpria_server.calls.schemas import CallFull, CallListed

from server.tests.edge_client import CALLER, DAY, NUMBER, Story, connect


@pytest.fixture
async def edge(api):
    return await connect(api)


async def until(probe, seconds: float = 90):
    deadline = time.monotonic() + seconds
    while True:
        value = await probe()
        if value:
            return value
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


async def ids(client, query: str) -> list[str]:
    answer = await client.get(f"/v1/calls?{query}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["pagination"]["total"] >= len(body["data"])
    return [call["id"] for call in body["data"]]


async def test_a_listed_call_has_the_references_fields_and_ours(client, edge):
    story = Story(agent_id="agent_elsewhere")
    await edge.send(*story.completed(recording=True))
    (call,) = (await client.get("/v1/calls")).json()["data"]
    assert set(call) == {field.alias or name for name, field in CallListed.model_fields.items()}
    CallListed.model_validate(call)
    link = call.pop("recording_url")
    assert link.startswith(
        f"http://127.0.0.1:{client._transport.app.state.settings.http_port}/v1/recordings/{story.id}.mp3?"
    )
    assert call == {
        "id": story.id,
        "phone_number": NUMBER,
        "direction": "inbound",
        "from": CALLER,
        "to": NUMBER,
        "agent_id": "agent_elsewhere",
        "status": "completed",
        "duration": 7,
        "started_at": "2026-03-04T05:06:07Z",
        "answered_at": "2026-03-04T05:06:08Z",
        "ended_at": "2026-03-04T05:06:15Z",
        "transcript_available": False,
        "max_duration": 60,
        "sip_code": 200,
        "sip_reason": "OK",
        "end_cause": "hangup",
        "ended_by": "caller",
        "explanation": {
            "summary": f"{NUMBER} goes to the agent. The caller hung up.",
            "tried": ["number: known", "The caller hung up."],
            "nearest": None,
            "mend": None,
        },
    }


async def test_a_call_in_full(client, edge):
    agent = (await client.post("/v1/agents", json={"name": "Reception", "engine": "elevenlabs"})).json()["id"]
    story = Story(agent_id=agent)
    noisy = Direction(packets=480, lost=20, loss_percent=4.0, jitter_ms=12.5, mos=3.7, codec="PCMA")
    await edge.send(*story.completed(), story.measured(agent=noisy))
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert set(call) == {field.alias or name for name, field in CallFull.model_fields.items()}
    CallFull.model_validate(call)
    assert (call["agent_name"], call["transcript"], call["recording_url"]) == ("Reception", None, None)
    assert call["metadata"]["call_quality"] == "good"
    assert (call["quality"]["source"], call["quality"]["mos"]) == ("packets", 3.7)
    assert call["quality"]["agent"] == {
        "packets": 480,
        "lost": 20,
        "loss_percent": 4.0,
        "jitter_ms": 12.5,
        "mos": 3.7,
        "codec": "PCMA",
    }
    assert [(e["type"], e["offset_ms"]) for e in call["events"]] == [
        ("invited", 0),
        ("ringing", 100),
        ("answered", 1000),
        ("ended", 8000),
        ("measured", 9000),
    ]
    assert call["events"][0]["source"] == "127.0.0.8:5060"
    assert "account_id" not in call["events"][0]
    assert call["events"][3]["cause"] == "hangup"


async def test_an_agent_of_somebody_else_has_no_name_here(api, client, edge):
    other = await api.client(await api.new_key())
    agent = (await other.post("/v1/agents", json={"name": "Secret", "engine": "elevenlabs"})).json()["id"]
    story = Story(agent_id=agent)
    await edge.send(*story.completed())
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert (call["agent_id"], call["agent_name"]) == (agent, None)


async def test_nothing_measured_is_nothing_claimed(client, edge):
    silent, unmeasured = Story(), Story()
    await edge.send(*silent.completed(), silent.measured(caller=None, agent=None), *unmeasured.completed())
    for story in (silent, unmeasured):
        call = (await client.get(f"/v1/calls/{story.id}")).json()
        assert (call["quality"], call["metadata"]["call_quality"]) == (None, None)


async def test_the_caller_is_located_by_the_number_plan(client, edge):
    denver, nowhere = Story(), Story(from_="anonymous")
    await edge.send(*denver.completed(), *nowhere.completed())

    async def location():
        return (await client.get(f"/v1/calls/{denver.id}")).json()["metadata"]["caller_location"]

    assert await until(location) == "Denver, CO"
    assert (await client.get(f"/v1/calls/{nowhere.id}")).json()["metadata"]["caller_location"] is None


async def test_looking_up_locations_does_not_hold_up_the_api(client, edge):
    """Loading the number plan takes seconds; the API answers on meanwhile."""
    story = Story()
    await edge.send(*story.completed())
    times = []

    async def location():
        started_at = time.perf_counter()
        call = (await client.get(f"/v1/calls/{story.id}")).json()
        times.append(time.perf_counter() - started_at)
        return call["metadata"]["caller_location"]

    await until(location)
    assert max(times) < 0.8


@pytest.fixture
async def log(edge):
    """Five calls, oldest first: on three days, of two numbers, in four states."""
    stories = [
        Story(DAY),
        Story(DAY.replace(hour=23, minute=59, second=59)),
        Story(DAY + timedelta(days=1), to="+15555559999"),
        Story(DAY + timedelta(days=1, hours=1), direction="outbound", from_=NUMBER, to=CALLER),
        Story(DAY + timedelta(days=3)),
    ]
    await edge.send(*stories[0].completed(), *stories[1].failed(), *stories[2].failed("canceled", 487, "Gone"))
    await edge.send(*stories[3].completed(), stories[4].invited())
    return [story.id for story in stories]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [4, 3, 2, 1, 0]),
        ("phone_number=%2B15555551234", [4, 3, 1, 0]),
        ("phone_number=+15555559999", [2]),
        ("phone_number=%2B15550000000", []),
        ("direction=outbound", [3]),
        ("direction=inbound&status=completed", [0]),
        ("status=busy", [1]),
        ("status=canceled", [2]),
        ("status=in-progress", [4]),
        ("status=no-answer", []),
        ("start_date=2026-03-05", [4, 3, 2]),
        ("end_date=2026-03-04", [1, 0]),
        ("start_date=2026-03-05&end_date=2026-03-05", [3, 2]),
        ("start_date=2026-03-04T05:06:07.250Z&end_date=2026-03-04T05:06:07.250Z", [0]),
        ("start_date=2026-03-04T05:06:07.251Z&end_date=2026-03-04T23:59:58Z", []),
        ("start_date=2026-03-05T06:06:08%2B01:00&end_date=2026-03-05T06:06:09%2B01:00", []),
        ("start_date=2026-03-05T06:06:07%2B01:00&end_date=2026-03-05T06:06:08%2B01:00", [2]),
        ("start_date=2026-03-05T06:06:07+01:00&end_date=2026-03-05T06:06:08+01:00", [2]),
        ("start_date=2026-03-05T05:06:07&end_date=2026-03-05T05:06:08", [2]),
        ("start_date=2026-03-05T05:06:07Z&end_date=2026-03-05T05:06:07Z", [2]),
        ("start_date=2026-03-05T06:06:07%2B01:00&end_date=2026-03-05T06:06:07.249%2B01:00", []),
        ("end_date=9999-12-31", [4, 3, 2, 1, 0]),
        ("start_date=0001-01-01", [4, 3, 2, 1, 0]),
        ("start_date=2026-03-06&end_date=2026-03-04", []),
    ],
)
async def test_filters(client, log, query, expected):
    assert await ids(client, query) == [log[n] for n in expected]


async def test_pages(client, log):
    body = (await client.get("/v1/calls?per_page=2&page=2")).json()
    assert [call["id"] for call in body["data"]] == [log[2], log[1]]
    assert body["pagination"] == {"page": 2, "per_page": 2, "total": 5}
    assert await ids(client, "per_page=2&page=3") == [log[0]]
    assert await ids(client, "per_page=2&page=4") == []
    assert await ids(client, f"per_page=2&starting_after={log[3]}") == [log[2], log[1]]
    assert await ids(client, f"phone_number=%2B15555551234&starting_after={log[3]}") == [log[1], log[0]]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("start_date=yesterday", "start_date"),
        ("end_date=2026-02-30", "end_date"),
        ("start_date=2026-13-01", "start_date"),
        ("end_date=", "end_date"),
        ("start_date=0001-01-01T00:00:00%2B14:00", "start_date"),
        ("status=finished", "status"),
        ("direction=up", "direction"),
        ("page=0", "page"),
        ("phone_number=%00", "phone_number"),
        ("per_page=101", "per_page"),
        ("phone_number=" + "1" * 65, "phone_number"),
    ],
)
async def test_filters_that_make_no_sense(client, query, field):
    answer = await client.get(f"/v1/calls?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["field"]) == (400, "invalid_parameter", field)


async def test_an_unknown_call(client):
    answer = await client.get("/v1/calls/call_nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "call_not_found")


async def test_nobody_sees_the_calls_of_another_account_or_mode(api, client, edge):
    live = Story(mode="live")
    story = Story(explanation=Explanation(summary="Mine."))
    await edge.send(*story.completed(recording=True), *live.completed())
    assert await ids(client, "") == [story.id]
    strangers = [
        (await api.client(await api.new_key()), []),
        (await api.client(await api.new_key(mode="live", account_id="acct_sandbox")), [live.id]),
    ]
    for stranger, theirs in strangers:
        assert await ids(stranger, "") == theirs
        assert await ids(stranger, f"phone_number=%2B{NUMBER[1:]}") == theirs
        assert (await stranger.get(f"/v1/calls/{story.id}")).status_code == 404
        events = (await stranger.get("/v1/events")).json()
        assert {event["data"]["call_id"] for event in events["data"]} == set(theirs)
        assert events["pagination"]["total"] == 2 * len(theirs)


async def test_the_right_to_read_calls_is_needed(api):
    without = await api.client(await api.new_key(scopes={"trunks:read", "calls:write"}))
    for path in ("/v1/calls", "/v1/calls/call_x"):
        answer = await without.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")


async def test_events_are_listed_with_what_webhooks_get(client, edge):
    now = datetime.now(UTC).replace(microsecond=0)
    story = Story(now)
    await edge.send(*story.failed())
    listed = (await client.get("/v1/events?type=call.failed")).json()
    assert listed["pagination"]["total"] == 1
    (event,) = listed["data"]
    assert event["id"].startswith("evt_")
    assert event["timestamp"] == (now + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert event["data"] == {
        "call_id": story.id,
        "phone_number": NUMBER,
        "direction": "inbound",
        "status": "busy",
        "duration": 0,
        "recording_url": None,
        "from": CALLER,
        "to": NUMBER,
        "agent_id": None,
        "sip_code": 486,
        "end_cause": "rejected",
    }
    assert (await client.get("/v1/events?type=call.exploded")).status_code == 400
