"""A trunk's server that rings for too long, or fails: the caller hears of it, or the next trunk takes over."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import PCMU, rtp_peer
from running_edge import RunningEdge, until
from sipp_tool import Sipp, body, sipp
from voxpria_edge.media.rtpengine import Rtpengine
from voxpria_routing.events import Attempted
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port

CONTROL = "127.0.0.4"


def session(edge: RunningEdge, call_id: str) -> dict[str, Any] | None:
    """Return what rtpengine knows of a call."""

    async def ask() -> dict[str, Any] | None:
        rtpengine = Rtpengine(CONTROL, edge.sip_port)
        await rtpengine.open()
        try:
            return await rtpengine.session(call_id)
        finally:
            rtpengine.close()

    return asyncio.run(ask())


def tries(edge: RunningEdge, sip_call_id: str, count: int) -> list[Attempted]:
    """Return what is told of servers that did not take a call; the reasons are looked for while it goes on."""

    def told() -> list[Attempted] | None:
        found = [e for call in edge.calls(sip_call_id) for e in call.events if isinstance(e, Attempted)]
        return found if len(found) == count else None

    return until("the tries are told of", told)


def test_a_server_that_only_rings_is_canceled_in_time(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number, ring_timeout_seconds=2)])
    with (
        sipp("agent_rings_until_canceled", folder, address=AGENT, port=agent_port) as ringing,
        sipp("carrier_is_refused", folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number) as carrier,
    ):
        carrier.wait()
        ringing.wait()
    assert [m.split()[0] for m in ringing.received] == ["INVITE", "CANCEL", "ACK"]
    assert any(m.startswith("SIP/2.0 180") for m in carrier.received)
    assert carrier.final_code() == 408
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("no_answer", 408)
    until("its media is forgotten", lambda: session(edge, call.id) is None)


@pytest.mark.parametrize("is_the_numbers", [True, False])
def test_a_server_that_only_rings_leaves_the_call_to_the_next(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, *, is_the_numbers: bool
) -> None:
    second_port = free_port()
    limit = {"ring_timeout_seconds": 2}
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_b",), **({} if is_the_numbers else limit))
    second = trunk_to(second_port, id="trunk_b", name="The second")
    edge.route([first, second], [number_on(first, number, **(limit if is_the_numbers else {}))])
    (folder / "second").mkdir()
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_rings_until_canceled", folder, address=AGENT, port=agent_port) as ringing,
        sipp("agent_answers", folder / "second", address=AGENT, port=second_port) as answering,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        ringing.wait()
        answering.wait()
    [tried] = tries(edge, carrier.sip_call_id, 1)
    assert (tried.trunk_id, tried.cause, tried.sip_code) == ("trunk_a", "no_answer", 408)
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "hangup"


@pytest.fixture(params=["503", "silence", "refused", "no name"])
def failing(request: pytest.FixtureRequest, folder: Path, agent_port: int) -> Iterator[Trunk]:
    """A trunk whose server does not take calls: it says so, says nothing, is not there, is nowhere."""
    values: dict[str, object] = {"failover_trunk_ids": ("trunk_b",), "id": "trunk_failing"}
    match request.param:
        case "503":
            with sipp("agent_refuses", folder, address=AGENT, port=agent_port):
                yield trunk_to(agent_port, **values)
        case "refused":
            yield trunk_to(agent_port, transport="tcp", **values)
        case "no name":
            yield trunk_to(5060, server="no-such-host.invalid", **values)
        case _:
            yield trunk_to(agent_port, **values)


def test_audio_flows_both_ways_at_the_trunk_that_takes_over(
    edge: RunningEdge, number: str, folder: Path, failing: Trunk
) -> None:
    port = free_port()
    second = trunk_to(port, id="trunk_b", name="The second")
    edge.route([failing, second], [number_on(failing, number)])
    (folder / "second").mkdir()
    to = (edge.address, edge.sip_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp("agent_answers_with", folder / "second", address=AGENT, port=port, keys=agent.keys) as answering,
        sipp(
            "carrier_offers",
            folder,
            address=CARRIER,
            to=to,
            number=number,
            keys=caller.keys,
            extra=("-d", "4000"),
        ) as carrier,
    ):
        agent.talk(until("the second has an offer", lambda: described(answering, "INVITE")))
        caller.talk(until("the carrier has an answer", lambda: described(carrier, "SIP/2.0 200")))
        until("the agent hears the caller", lambda: abs(agent.heard_hertz() - caller.hertz) < 5, 10)
        until("the caller hears the agent", lambda: abs(caller.heard_hertz() - agent.hertz) < 5, 10)
        [call] = edge.calls(carrier.sip_call_id)
        media = session(edge, call.id)
        assert media is not None
        # the caller, and the one who answered: nothing is left of the branch that failed
        assert len(media["tags"]) == 2
        carrier.wait()
        answering.wait()
    [tried] = tries(edge, carrier.sip_call_id, 1)
    assert tried.trunk_id == failing.id
    until("its media is forgotten", lambda: session(edge, call.id) is None)


def described(side: Sipp, start: str) -> str:
    """Return the first session description that came in messages that begin so."""
    return next((body(message) for message in side.received if message.startswith(start) and body(message)), "")
