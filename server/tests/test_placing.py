"""Calls that the API places: queued, taken by one edge, and ended with a reason if none does."""

import asyncio
import itertools

import httpx2
import msgspec
import pytest
import sqlalchemy as sa
from voxpria_routing.edge_api import Commands, CommandsWanted, HangUp, Place
from voxpria_server.calls import placing, service

from server.tests.edge_client import Story, connect

CALLEE = "+13035550199"
_numbers = itertools.count(12125552000)


async def make_number(api, client, *, status: str = "active", engine: str = "openai", **more) -> dict:
    """Make a number on a carrier's trunk, with a trunk of its engine; it is active without being provisioned."""
    credentials = {"project_id": "proj_1", "api_key": "sk-1", "webhook_secret": "whsec_1"}
    if engine == "elevenlabs":
        credentials = {"username": "u", "password": "p"}
    carrier = await client.post(
        "/v1/sip/trunks",
        json={"name": f"Carrier {next(_numbers)}", "provider": "generic", "config": {"server": "127.0.0.1", "port": 9}},
    )
    assert carrier.status_code == 201, carrier.text
    agents = await client.post(
        "/v1/sip/trunks", json={"name": f"Agents {next(_numbers)}", "provider": engine, "credentials": credentials}
    )
    assert agents.status_code == 201, agents.text
    body = {"phone_number": f"+{next(_numbers)}", "trunk_id": carrier.json()["id"], "engine": engine}
    body["config"] = {"engine_trunk_id": agents.json()["id"]}
    made = await client.post("/v1/phone-numbers/import", json=body | more)
    assert made.status_code == 201, made.text
    async with api.database.transaction() as conn:
        change = "UPDATE phone_numbers SET status = :status, is_routed = true WHERE id = :id"
        await conn.execute(sa.text(change), {"status": status, "id": made.json()["id"]})
    return made.json() | {"agent_trunk_id": agents.json()["id"]}


@pytest.fixture
async def number(api, client) -> dict:
    return await make_number(api, client)


@pytest.fixture
async def edge(api):
    return await connect(api)


async def commands(edge, edge_id: str = "edge_1", wait: float = 0) -> tuple:
    answer = await edge.post("commands", CommandsWanted(edge_id=edge_id, wait_seconds=wait))
    return msgspec.json.decode(answer.content, type=Commands).commands


async def take(edge, call_id: str, edge_id: str = "edge_1") -> int:
    return (await edge.client.post(f"/edge/v1/calls/{call_id}/take?edge_id={edge_id}")).status_code


def placed_by_edge(call: dict, number: dict, **more) -> Story:
    """The call as the edge that took it tells of it."""
    story = Story(direction="outbound", from_=number["number"], to=CALLEE, number_id=number["id"], **more)
    story.id = call["id"]
    return story


async def test_a_call_is_queued_and_every_edge_hears_of_it_at_once(client, edge, number):
    waiting = asyncio.create_task(commands(edge, "edge_2", wait=20))
    body = {"from": number["id"], "to": CALLEE, "variables": {"name": "Ada"}, "metadata": {"order": "42", "vip": True}}
    answer = await client.post("/v1/calls", json=body)
    assert answer.status_code == 201, answer.text
    call = answer.json()
    assert (call["status"], call["direction"]) == ("queued", "outbound")
    assert (call["from"], call["phone_number"], call["to"]) == (number["number"], number["number"], CALLEE)
    (command,) = await asyncio.wait_for(waiting, 10)
    assert isinstance(command, Place)
    assert (command.call_id, command.from_, command.to) == (call["id"], number["number"], CALLEE)
    assert (command.number_id, command.variables) == (number["id"], {"name": "Ada"})
    record = (await client.get(f"/v1/calls/{call['id']}")).json()
    assert (record["status"], record["duration"], record["ended_at"]) == ("queued", 0, None)
    # where the number is, is looked up beside
    assert record["metadata"].items() >= {"order": "42", "vip": True, "call_quality": None}.items()
    listed = (await client.get("/v1/calls?status=queued")).json()
    assert [each["id"] for each in listed["data"]] == [call["id"]]


async def test_one_edge_takes_it_and_its_record_goes_on(api, client, edge, number):
    call = (await client.post("/v1/calls", json={"from": number["number"], "to": CALLEE, "metadata": {"a": 1}})).json()
    taken = await asyncio.gather(*(take(edge, call["id"], f"edge_{i}") for i in range(1, 6)))
    assert sorted(taken) == [204, 409, 409, 409, 409]
    winner = f"edge_{taken.index(204) + 1}"
    assert await take(edge, call["id"], winner) == 204
    story = placed_by_edge(call, number, edge_id=winner)
    await edge.send(story.invited(), story.ringing(), story.answered())
    record = (await client.get(f"/v1/calls/{call['id']}")).json()
    assert (record["status"], record["started_at"]) == ("in-progress", call["started_at"])
    assert await commands(edge, winner) == ()
    await edge.send(story.ended())
    record = (await client.get(f"/v1/calls/{call['id']}")).json()
    assert (record["status"], record["duration"]) == ("completed", 7)
    assert [event["type"] for event in record["events"]].count("queued") == 1
    told = (await client.get("/v1/events")).json()["data"]
    mine = [each for each in told if each["data"].get("call_id") == call["id"]]
    assert sorted(each["event"] for each in mine) == ["call.ended", "call.started"]
    assert {each["data"]["direction"] for each in mine} == {"outbound"}
    assert all(each["data"]["metadata"] == {"a": 1} for each in mine)


async def test_what_no_edge_takes_fails_with_that_as_its_reason(api, client, edge, number):
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    async with api.database.transaction() as conn:
        await placing.expire(api.app.state.recording_links, conn, call["id"])
    record = (await client.get(f"/v1/calls/{call['id']}")).json()
    assert (record["status"], record["end_cause"], record["sip_code"]) == ("failed", "not_placed", None)
    assert "No edge placed the call in time." in record["explanation"]["summary"]
    assert record["explanation"]["mend"]
    assert await take(edge, call["id"]) == 409
    told = (await client.get("/v1/events")).json()["data"]
    assert [e["event"] for e in told if e["data"].get("call_id") == call["id"]] == ["call.failed"]


async def test_a_call_that_an_edge_took_is_left_to_it_for_a_while(api, client, edge, number):
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    assert await take(edge, call["id"]) == 204
    async with api.database.transaction() as conn:
        with pytest.raises(placing.NotYetError):
            await placing.expire(api.app.state.recording_links, conn, call["id"])
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE calls SET started_at = started_at - interval '1 hour'"))
    async with api.database.transaction() as conn:
        await placing.expire(api.app.state.recording_links, conn, call["id"])
    record = (await client.get(f"/v1/calls/{call['id']}")).json()
    assert (record["status"], record["end_cause"]) == ("failed", "lost")
    assert await commands(edge) == ()


async def test_hanging_up_a_queued_call_cancels_it(client, edge, number):
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    answer = await client.post(f"/v1/calls/{call['id']}/hangup")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert await take(edge, call["id"]) == 409
    assert await commands(edge) == ()


async def test_hanging_up_a_call_that_an_edge_has_just_taken_is_that_edges_to_do(client, edge, number, monkeypatch):
    monkeypatch.setattr("voxpria_server.calls.commands.HANG_UP_SECONDS", 0.3)
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    assert await take(edge, call["id"], "edge_2") == 204
    assert (await client.post(f"/v1/calls/{call['id']}/hangup")).status_code == 202
    assert HangUp in {type(command) for command in await commands(edge, "edge_2")}
    assert await commands(edge, "edge_1") == ()


async def test_a_call_that_an_edge_tells_of_while_it_is_hung_up_is_that_edges_to_end(
    api, client, edge, number, monkeypatch
):
    """Its record is not ended here: the call itself would go on."""
    monkeypatch.setattr("voxpria_server.calls.commands.HANG_UP_SECONDS", 0.3)
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    assert await take(edge, call["id"]) == 204
    async with api.database.transaction() as conn:
        await service.take(api.app.state.recording_links, conn, [placed_by_edge(call, number).invited()])
        hanging_up = asyncio.create_task(client.post(f"/v1/calls/{call['id']}/hangup"))
        await until_one_waits_for_a_lock(api)
    assert (await hanging_up).status_code == 202
    assert HangUp in {type(command) for command in await commands(edge)}
    assert (await client.get(f"/v1/calls/{call['id']}")).json()["status"] == "in-progress"


async def test_a_call_that_an_edge_tells_of_at_the_last_moment_is_not_failed(api, client, edge, number):
    call = (await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).json()
    assert await take(edge, call["id"]) == 204

    async def expire() -> None:
        async with api.database.transaction() as conn:
            await placing.expire(api.app.state.recording_links, conn, call["id"])

    async with api.database.transaction() as conn:
        await service.take(api.app.state.recording_links, conn, [placed_by_edge(call, number).invited()])
        expiring = asyncio.create_task(expire())
        await until_one_waits_for_a_lock(api)
    await expiring
    assert (await client.get(f"/v1/calls/{call['id']}")).json()["status"] == "in-progress"


async def until_one_waits_for_a_lock(api) -> None:
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with asyncio.timeout(60):
        while True:
            async with api.database.read() as conn:
                if (await conn.execute(waiting)).scalar_one():
                    return
            await asyncio.sleep(0.02)


async def test_the_same_key_places_one_call(client, number):
    body, headers = {"from": number["id"], "to": CALLEE}, {"Idempotency-Key": "one call"}
    first = await client.post("/v1/calls", json=body, headers=headers)
    again = await client.post("/v1/calls", json=body, headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.json() == again.json()
    assert (await client.get("/v1/calls?status=queued")).json()["pagination"]["total"] == 1


@pytest.mark.parametrize(
    ("change", "status", "code", "field"),
    [
        ({"to": "5551234"}, 400, "invalid_phone_number", "to"),
        ({"from": "12125551234"}, 400, "invalid_phone_number", "from"),
        ({"from": "+12125550000"}, 404, "phone_not_found", "from"),
        ({"from": "phone_none"}, 404, "phone_not_found", "from"),
        ({"agent_id": "agent_none"}, 404, "agent_not_found", "agent_id"),
        ({"variables": {"bad name": "x"}}, 400, "invalid_parameter", None),
        ({"variables": {"name": 1}}, 400, "invalid_parameter", None),
        ({"variables": {f"v{i}": "x" for i in range(17)}}, 400, "invalid_parameter", None),
        ({"metadata": {"call_quality": "mine"}}, 400, "invalid_parameter", None),
        ({"metadata": {"deep": {}}}, 400, "invalid_parameter", None),
        ({"unknown": 1}, 400, "invalid_parameter", "unknown"),
        ({"to": None}, 400, None, "to"),
    ],
)
async def test_what_can_not_be_placed_is_refused(client, number, change, status, code, field):
    answer = await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE} | change)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert code in (None, error["code"])
    assert field in (None, error["details"].get("field"))
    assert (await client.get("/v1/calls")).json()["pagination"]["total"] == 0


async def test_a_number_without_a_carrier_or_out_of_service_places_nothing(api, client):
    provisioning = await make_number(api, client, status="provisioning")
    answer = await client.post("/v1/calls", json={"from": provisioning["id"], "to": CALLEE})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "number_not_in_service")
    alone = f"+{next(_numbers)}"
    body = {"phone_number": alone, "trunk_id": provisioning["agent_trunk_id"]}
    await client.post("/v1/phone-numbers/import", json=body)
    answer = await client.post("/v1/calls", json={"from": alone, "to": CALLEE})
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "from")


async def test_another_agent_talks_where_the_engine_lets_us_choose(api, client, edge, number):
    agent = (await client.post("/v1/agents", json={"name": "B", "engine": "openai"})).json()["id"]
    answer = await client.post("/v1/calls", json={"from": number["id"], "to": CALLEE, "agent_id": agent})
    assert answer.json()["agent_id"] == agent
    eleven = await make_number(api, client, engine="elevenlabs", agent_id="agent_at_eleven")
    same = {"from": eleven["id"], "to": CALLEE, "agent_id": "agent_at_eleven"}
    assert (await client.post("/v1/calls", json=same)).status_code == 201
    other = await client.post("/v1/calls", json=same | {"agent_id": "agent_other"})
    assert (other.status_code, other.json()["error"]["details"]["field"]) == (400, "agent_id")


async def test_nobody_calls_from_anothers_number(api, client, number):
    for stranger in (
        await api.client(await api.new_key()),
        await api.client(await api.new_key(mode="live", account_id="acct_sandbox")),
    ):
        for given in (number["id"], number["number"]):
            answer: httpx2.Response = await stranger.post("/v1/calls", json={"from": given, "to": CALLEE})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "phone_not_found")
    reader = await api.client(await api.new_key(account_id="acct_sandbox", scopes=["calls:read"]))
    assert (await reader.post("/v1/calls", json={"from": number["id"], "to": CALLEE})).status_code == 403
