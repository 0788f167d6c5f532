"""Calls ended through the API: the edge that has the call is told at once, and the answer is the truth."""

import asyncio

import msgspec
import pytest
from voxpria_routing.edge_api import Command, Commands, CommandsWanted, HangUp
from voxpria_server.calls import queries

from server.tests.edge_client import DAY, Story, connect


@pytest.fixture
async def edge(api):
    return await connect(api)


async def commands(edge, edge_id: str = "edge_1", known: tuple[str, ...] = (), wait: float = 0) -> tuple[Command, ...]:
    body = msgspec.json.encode(CommandsWanted(edge_id=edge_id, known=known, wait_seconds=wait))
    answer = await edge.post("commands", body)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=Commands).commands


async def test_the_edge_of_the_call_is_told_at_once_and_the_answer_waits_for_the_end(client, edge):
    story = Story()
    await edge.send(story.invited(), story.answered())
    waiting = asyncio.create_task(commands(edge, wait=20))
    asked = asyncio.create_task(client.post(f"/v1/calls/{story.id}/hangup"))
    (command,) = await asyncio.wait_for(waiting, 10)
    assert isinstance(command, HangUp)
    assert command.call_id == story.id
    assert await commands(edge, "edge_2") == ()
    assert await commands(edge, known=(command.id,)) == ()
    await edge.send(story.ended(by="api"))
    answer = await asked
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "id": story.id,
        "status": "completed",
        "ended_at": "2026-03-04T05:06:15Z",
        "ended_by": "api",
    }
    assert await commands(edge) == ()
    record = (await client.get(f"/v1/calls/{story.id}")).json()
    assert (record["ended_by"], record["end_cause"]) == ("api", "hangup")
    assert record["explanation"]["summary"].endswith("The call was ended through the API.")


async def test_a_call_that_takes_longer_to_end_is_202_and_asked_for_once(client, edge, monkeypatch):
    monkeypatch.setattr("voxpria_server.calls.commands.HANG_UP_SECONDS", 0.5)
    story = Story()
    await edge.send(story.invited())
    first, second = await asyncio.gather(*(client.post(f"/v1/calls/{story.id}/hangup") for _ in range(2)))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == {
        "success": False,
        "id": story.id,
        "status": "in-progress",
        "ended_at": None,
        "ended_by": None,
    }
    assert len(await commands(edge)) == 1
    await edge.send(story.ended(cause="canceled", by="api", code=603, reason="Decline"))
    assert await commands(edge) == ()
    again = await client.post(f"/v1/calls/{story.id}/hangup")
    assert (again.status_code, again.json()["status"]) == (200, "canceled")


async def test_a_call_that_ended_otherwise_is_a_conflict(client, edge):
    story = Story()
    await edge.send(*story.completed())
    answer = await client.post(f"/v1/calls/{story.id}/hangup")
    assert answer.status_code == 409
    error = answer.json()["error"]
    assert (error["code"], error["details"]) == ("call_is_over", {"status": "completed", "ended_by": "caller"})
    assert await commands(edge) == ()


async def test_a_caller_who_hangs_up_first_leaves_nothing_to_do(api, client, edge):
    story = Story()
    await edge.send(story.invited(), story.answered())
    asked = asyncio.create_task(client.post(f"/v1/calls/{story.id}/hangup"))
    await commands(edge, wait=20)
    await edge.send(story.ended())
    assert (await asked).status_code == 409
    async with api.database.transaction() as conn:
        assert await queries.drop_commands_of_ended_of_job(conn) == 1
    assert await commands(edge) == ()


async def test_an_idempotent_hangup_is_replayed(client, edge):
    story = Story()
    await edge.send(story.invited(), story.answered())
    headers = {"Idempotency-Key": "hang up once"}
    asked = asyncio.create_task(client.post(f"/v1/calls/{story.id}/hangup", headers=headers))
    await commands(edge, wait=20)
    await edge.send(story.ended(by="api"))
    assert (await asked).status_code == 200
    again = await client.post(f"/v1/calls/{story.id}/hangup", headers=headers)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == (await asked).json()


async def test_it_takes_the_right_to_write(api, edge):
    story = Story(DAY)
    await edge.send(story.invited())
    reader = await api.client(await api.new_key(account_id="acct_sandbox", scopes=["calls:read"]))
    answer = await reader.post(f"/v1/calls/{story.id}/hangup")
    assert answer.status_code == 403
    assert await commands(edge) == ()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"edge_id": 1}', b'{"edge_id": "e", "wait_seconds": 1000}', b"\xff"])
async def test_a_question_of_an_edge_that_is_none_is_refused(edge, body):
    assert (await edge.post("commands", body)).status_code == 400
