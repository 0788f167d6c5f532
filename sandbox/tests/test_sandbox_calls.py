"""The carrier calls the agent: real SIP, real audio, no edge between."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from voxpria_sandbox.accounts import ELEVENLABS_HOST
from voxpria_sandbox.agent import AgentCall
from voxpria_sandbox.behaviours import DEFAULT_MESSAGE
from voxpria_sandbox.carrier import MAX_CALLS, BusyError, Result
from voxpria_sandbox.elevenlabs import NumberImport
from voxpria_sandbox.sip.digest import Credentials
from voxpria_sip import transaction, transport

from sandbox.tests.conftest import AGENT, NUMBER, World, Worlds


async def until(what: str, condition: Callable[[], Any], seconds: float = 5) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {seconds} s: {what}")


async def the_agents(world: World) -> AgentCall:
    """The agent's view of the last call, once it is over there too."""
    call = world.agent.calls()[0]
    await until("the agent's call ends", lambda: call.status not in ("ringing", "in-progress"))
    return call


@pytest.mark.parametrize("transport_name", ["udp", "tcp"])
async def test_both_hear_each_other_and_the_caller_hangs_up(world: World, transport_name: str) -> None:
    result = await world.call(talk_seconds=3, transport=transport_name)
    assert (result.answered, result.sip_code, result.ended_by) == (True, 200, "caller")
    assert 2.9 < result.duration_seconds < 6
    assert result.heard_speech_seconds > 1.5
    in_full = result.duration_seconds * 50  # a frame is 20 ms; those too late for their moment are left out
    assert 0.6 * in_full < result.packets_sent <= in_full + 10
    assert 0.6 * in_full < result.packets_received <= in_full + 10
    assert list(result.timings_ms) == ["ringing", "answered", "ended", "first_audio"]
    heard = (await the_agents(world)).report()
    assert heard["heard_speech_seconds"] > 1.5
    assert (heard["said"], heard["ended_by"], heard["status"]) == ([DEFAULT_MESSAGE], "caller", "completed")


async def test_the_agent_hangs_up_when_told(world: World) -> None:
    result = await world.call(talk_seconds=0.5, hangup_by="agent")
    assert (result.answered, result.ended_by) == (True, "agent")
    assert 0.4 < result.duration_seconds < 4
    assert (await the_agents(world)).report()["ended_by"] == "agent"


async def test_a_silent_caller_is_silent(world: World) -> None:
    result = await world.call(words="")
    assert result.packets_sent > 40
    assert (await the_agents(world)).report()["heard_speech_seconds"] == 0


async def test_a_caller_who_gives_up_while_it_rings_cancels(worlds: Worlds) -> None:
    async with worlds(ring_seconds=10) as world:
        steps: list[str] = []
        call = world.carrier.start(world.order(), lambda name, _: steps.append(name))
        await until("it rings", lambda: "ringing" in steps)
        call.cancel()
        await asyncio.wait([call], timeout=5)
        assert call.cancelled()
        assert (await the_agents(world)).status == "canceled"
        await until("487 has come", lambda: "response" in steps[2:])


async def test_a_caller_who_gives_up_in_the_call_hangs_up(world: World) -> None:
    call = world.carrier.start(world.order(talk_seconds=60), lambda _name, _facts: None)
    await until("the agent is in the call", lambda: world.agent.calls() and world.agent.calls()[0].call)
    call.cancel()
    assert (await the_agents(world)).report()["ended_by"] == "caller"


async def test_wrong_or_no_credentials_are_refused(world: World) -> None:
    wrong = await world.call(credentials=Credentials("test_user", "wrong"))
    assert (wrong.answered, wrong.sip_code, wrong.ended_by) == (False, 403, None)
    assert (await world.call(credentials=None)).sip_code == 401
    assert world.agent.calls() == []


async def test_elevenlabs_takes_the_credentials_of_the_dialled_number(world: World) -> None:
    for number, username in (("+15555557001", "one"), ("+15555557002", "two")):
        body = {"phone_number": number, "label": "x", "provider": "sip_trunk"}
        config = {"inbound_trunk_config": {"credentials": {"username": username, "password": "secret-word"}}}
        await world.store.add(NumberImport.model_validate({**body, **config}))

    async def code(to: str, username: str, host: str = ELEVENLABS_HOST) -> int | None:
        credentials = Credentials(username, "secret-word")
        return (await world.call(to=to, host=host, credentials=credentials, talk_seconds=0.1)).sip_code

    assert await code("+15555557001", "one") == 200
    assert await code("+15555557001", "one", "sip.rtc.eu.residency.elevenlabs.io") == 200
    assert world.agent.calls()[0].host == ELEVENLABS_HOST
    assert await code("+15555557001", "two") == 403
    assert await code("+15555557003", "one") == 404


async def test_a_call_survives_a_wire_that_loses_the_first_copy_of_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "T1_SECONDS", 0.05)
    seen: set[bytes] = set()
    send = transport._UdpFlow.send

    def lossy(flow: transport._UdpFlow, data: bytes) -> None:
        if data in seen:
            send(flow, data)
        seen.add(data)

    monkeypatch.setattr(transport._UdpFlow, "send", lossy)
    result = await world.call(talk_seconds=1)
    assert (result.answered, result.ended_by) == (True, "caller")
    assert result.heard_speech_seconds > 0.3
    assert (await the_agents(world)).report()["ended_by"] == "caller"


async def test_nobody_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.carrier.edge = (AGENT, 9)
    monkeypatch.setattr(transaction, "T1_SECONDS", 0.01)
    monkeypatch.setattr(transaction, "LIFETIME_SECONDS", 0.3)
    assert (await world.call()).sip_code == 408
    refused = await world.call(transport="tcp")
    assert (refused.answered, refused.sip_code) == (False, 503)


async def test_twenty_calls_at_once_keep_their_pace_and_a_twenty_first_is_refused(world: World) -> None:
    tasks = [world.carrier.start(world.order(talk_seconds=2), lambda _name, _facts: None) for _ in range(MAX_CALLS)]
    with pytest.raises(BusyError):
        world.carrier.start(world.order(), lambda _name, _facts: None)
    results: list[Result] = await asyncio.gather(*tasks)
    assert all(result.answered for result in results)
    packets_per_second = [result.packets_received / result.duration_seconds for result in results]
    assert min(packets_per_second) > 35
    assert max(packets_per_second) < 65
    assert len({call.sip_call_id for call in world.agent.calls()}) == MAX_CALLS
    assert world.agent.calls()[0].number == NUMBER
