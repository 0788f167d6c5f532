"""Both address families at once: each side in its own, media and signalling bridged between them."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import body, sipp

SETTINGS = {"VOXPRIA_SIP_ADDRESS_V6": "::1", "VOXPRIA_MEDIA_ADDRESS_V6": "::1"}


@pytest.fixture(scope="module")
def dual_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("dual"), SETTINGS) as running:
        yield running


@pytest.mark.parametrize(("carriers", "agents"), [("::1", AGENT), (CARRIER, "::1"), ("::1", "::1")])
def test_each_side_is_met_in_its_own_family(
    dual_edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str
) -> None:
    carrier_trunk = trunk_to(1, allowed_addresses=(carriers,))
    target = trunk_to(agent_port, id="trunk_b", server=agents, allowed_addresses=())
    dual_edge.route([carrier_trunk, target], [number_on(carrier_trunk, number, agent_trunk_id=target.id)])
    to = ("::1" if ":" in carriers else "127.0.0.1", dual_edge.sip_port)
    with (
        sipp("agent_answers", folder, address=agents, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=carriers, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    assert set(dual_edge.ended_call(carrier.sip_call_id).kinds[:4]) == {"invited", "ringing", "answered", "ended"}
    for side, address in ((carrier, carriers), (agent, agents)):
        (description,) = {body(message) for message in side.received if body(message)}
        family, relay = re.findall(r"^c=IN (IP[46]) (\S+)", description, re.M)[0]
        assert (family, relay) == (("IP6", "::1") if ":" in address else ("IP4", dual_edge.media_address))
