"""Both address families at once: each side in its own, media and signalling bridged between them, neither told of."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER
from running_edge import RunningEdge
from sipp_tool import body, header
from test_in_dialog import called
from voxpria_routing.hosts import host_port

NAME = "edge.example"
SETTINGS = {"VOXPRIA_SIP_ADDRESS_V6": "::1", "VOXPRIA_MEDIA_ADDRESS_V6": "::1"}


@pytest.fixture(scope="module")
def dual_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("dual"), SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def named_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("named"), {**SETTINGS, "VOXPRIA_SIP_NAME": NAME}) as running:
        yield running


@pytest.mark.parametrize(("carriers", "agents"), [("::1", AGENT), (CARRIER, "::1"), ("::1", "::1")])
def test_each_side_is_met_in_its_own_family(
    dual_edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    scenarios = "carrier_calls_and_hangs_up", "agent_answers"
    call, carrier, agent = called(dual_edge, folder, number, agent_port, *scenarios, addresses=(carriers, agents))
    assert set(call.kinds[:4]) == {"invited", "ringing", "answered", "ended"}
    for side, address in ((carrier, carriers), (agent, agents)):
        (description,) = {body(message) for message in side.received if body(message)}
        family, relay = re.findall(r"^c=IN (IP[46]) (\S+)", description, re.M)[0]
        assert (family, relay) == (("IP6", "::1") if ":" in address else ("IP4", dual_edge.media_address))


@pytest.mark.parametrize(("carriers", "agents"), [("::1", AGENT), (CARRIER, "::1")])
def test_a_caller_that_offers_late_is_met_in_its_own_family(
    dual_edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    """What the agent offers is of its own family, and the caller's INVITE says of media nothing at all."""
    scenarios = "carrier_offers_late", "agent_offers"
    _, carrier, agent = called(dual_edge, folder, number, agent_port, *scenarios, addresses=(carriers, agents))
    for side, address in ((carrier, carriers), (agent, agents)):
        (description,) = {body(message) for message in side.received if body(message)}
        assert ("c=IN IP6 ::1" if ":" in address else f"c=IN IP4 {dual_edge.media_address}") in description


@pytest.mark.parametrize(("carriers", "agents"), [("::1", AGENT), (CARRIER, "::1"), ("::1", "::1")])
def test_each_side_is_told_of_the_other_in_its_own_family(
    dual_edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    scenarios = "carrier_is_transferred", "agent_transfers"
    refer_to = f"<sip:desk@{host_port(agents, agent_port)}>"
    _, carrier, agent = called(
        dual_edge, folder, number, agent_port, *scenarios, addresses=(carriers, agents), refer_to=refer_to
    )
    ours = {address: "[::1]" if ":" in address else "127.0.0.1" for address in (carriers, agents)}
    refer = next(message for message in carrier.received if message.startswith("REFER"))
    assert header(refer, "Refer-To") == f"<sip:desk@{ours[carriers]}>"
    assert header(refer, "X-Node") == f"sip:{ours[carriers]};lr, {ours[carriers]}"
    invite = agent.received[0]
    assert header(invite, "From").partition(";")[0] == f"<sip:+13038921234@{ours[agents]}>"
    assert header(invite, "X-Node") == f"node at {ours[agents]}; not at 198.51.100.1"


@pytest.mark.parametrize(("carriers", "agents"), [("::1", AGENT), (CARRIER, "::1")])
def test_an_edge_with_a_name_shows_no_other_familys_address(
    named_edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    """Kamailio packs what it hides into one address, or into a name of both families' addresses."""
    scenarios = "carrier_is_transferred", "agent_transfers"
    refer_to = f"<sip:desk@{host_port(agents, agent_port)}>"
    _, carrier, agent = called(
        named_edge, folder, number, agent_port, *scenarios, addresses=(carriers, agents), refer_to=refer_to
    )
    for side, own in ((carrier, carriers), (agent, agents)):
        other = "127." if ":" in own else "::1"
        assert side.received
        for message in side.received:
            assert other not in message, message
        packed = [header(m, "Contact") for m in side.received if header(m, "Contact")]
        assert packed
        assert all(contact.startswith(f"<sip:{NAME};line=") for contact in packed)
