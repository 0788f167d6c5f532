"""Each magic number gives the real thing, to a caller without an edge between."""

import asyncio
from pathlib import Path

import pytest
from voxpria_sandbox import behaviours
from voxpria_sandbox.agent import AgentCall

from sandbox.tests.conftest import World
from sandbox.tests.test_sandbox_calls import the_agents, until

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "magic-numbers.md"


@pytest.mark.unit
def test_every_magic_number_is_documented() -> None:
    guide = GUIDE.read_text()
    assert [number for number in behaviours.MAGIC_NUMBERS if f"| {number} |" not in guide] == []


@pytest.mark.parametrize(
    ("number", "code"),
    [("+15555552486", 486), ("+15555552603", 603), ("+15555552503", 503), ("+15555552404", 404)],
)
async def test_refusals(world: World, number: str, code: int) -> None:
    result = await world.call(to=number)
    assert (result.answered, result.sip_code) == (False, code)
    assert (await the_agents(world)).status == "refused"


async def test_nobody_answers(world: World) -> None:
    steps: list[str] = []
    call = world.carrier.start(world.order(to="+15555552408"), lambda name, _: steps.append(name))
    await until("it rings", lambda: "ringing" in steps)
    await asyncio.sleep(1)  # rings on: there is no event for what does not happen
    assert "answered" not in steps
    call.cancel()
    await asyncio.wait([call], timeout=5)
    assert (await the_agents(world)).status == "canceled"


async def test_one_way_audio(world: World) -> None:
    result = await world.call(to="+15555552001", talk_seconds=2)
    assert result.answered
    assert result.packets_sent > 80
    assert result.packets_received == 0


async def test_late_media(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviours, "_LATE_SECONDS", 1.0)
    result = await world.call(to="+15555552005", talk_seconds=3)
    assert result.timings_ms["first_audio"] - result.timings_ms["answered"] >= 900
    assert result.heard_speech_seconds > 0.5


async def test_the_agent_drops_the_call(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviours, "_DROP_SECONDS", 1.0)
    result = await world.call(to="+15555552110", talk_seconds=20)
    assert result.ended_by == "agent"
    assert 0.9 < result.duration_seconds < 10


async def test_a_slow_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(behaviours.MAGIC_NUMBERS, "+15555552010", behaviours.Plan(ring_seconds=1.0))
    result = await world.call(to="+15555552010")
    assert result.timings_ms["answered"] - result.timings_ms["ringing"] >= 900


async def test_an_echo(world: World) -> None:
    result = await world.call(to="+15555552002", talk_seconds=3, words="Is there anybody out there? I can hear myself.")
    assert result.heard_speech_seconds > 1


async def test_the_menu_takes_keys(world: World) -> None:
    result = await world.call(to="+15555552012", talk_seconds=30, words="", digits="12", digits_after_seconds=0.5)
    assert result.ended_by == "agent"
    said = (await the_agents(world)).said
    assert said[1:] == ["Word."]


async def test_a_menu_without_keys_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviours, "_MENU", "Press.")
    monkeypatch.setattr(behaviours, "_MENU_SECONDS", 0.5)
    assert (await world.call(to="+15555552012", talk_seconds=30, words="")).ended_by == "agent"


async def test_a_transfer(world: World) -> None:
    result = await world.call(to="+15555552302", talk_seconds=20, words="")
    assert result.referred_to is not None
    assert behaviours.TRANSFERRED_TO in result.referred_to
    assert result.ended_by == "caller"
    call: AgentCall = await the_agents(world)
    assert call.said == ["One moment, I transfer you."]
