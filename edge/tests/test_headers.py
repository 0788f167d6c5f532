"""What each side is told, and what it is not: topology, identity, headers that are ours alone."""

from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import Sipp, body, header, sipp


def called(
    edge: RunningEdge, folder: Path, number: str, port: int, privacy: str = "none", provider: str = "generic"
) -> tuple[Sipp, Sipp]:
    trunk = trunk_to(port, provider=provider)
    edge.route([trunk], [number_on(trunk, number, agent_id="agent_1")])
    to, keys = (edge.address, edge.sip_port), [("privacy", privacy), ("more_headers", "Subject: none")]
    with (
        sipp("agent_answers", folder, address=AGENT, port=port) as agent,
        sipp("carrier_brings_headers", folder, address=CARRIER, to=to, number=number, keys=keys) as carrier,
    ):
        carrier.wait()
        agent.wait()
    edge.ended_call(carrier.sip_call_id)
    return carrier, agent


def test_neither_side_sees_the_others_address(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    carrier, agent = called(edge, folder, number, agent_port)
    for side, other in ((agent, CARRIER), (carrier, AGENT)):
        for message in side.received:
            shown = [header(message, name) for name in ("Via", "Record-Route", "Route", "Contact")]
            vias = [line for line in message.splitlines() if line.startswith("Via:")]
            own = next(iter(vias), "") if side is carrier else ""  # a carrier's own Via comes back to it
            assert not any(other in text for text in [*shown, *vias, body(message)] if text != own), message


def test_headers_of_ours_come_from_us_alone(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    carrier, agent = called(edge, folder, number, agent_port)
    call = edge.ended_call(carrier.sip_call_id)
    assert header(agent.received[0], "X-VoxPria-Call-Id") == call.id
    assert header(agent.received[0], "X-VoxPria-Agent-Id") == "agent_1"
    assert "callers" not in agent.received[0]
    assert "forged" not in agent.received[0]


def test_elevenlabs_gets_the_calls_id_and_its_caller(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    carrier, agent = called(edge, folder, number, agent_port, provider="elevenlabs")
    assert header(agent.received[0], "X-CALL-ID") == edge.ended_call(carrier.sip_call_id).id
    assert header(agent.received[0], "X-CALLER-ID") == "+13038921234"


@pytest.mark.parametrize(("privacy", "is_passed"), [("none", True), ("id", False), ("header;id;critical", False)])
def test_an_asserted_identity_is_passed_unless_it_is_private(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, privacy: str, is_passed: bool
) -> None:
    _, agent = called(edge, folder, number, agent_port, privacy)
    assert ("P-Asserted-Identity" in agent.received[0]) is is_passed
