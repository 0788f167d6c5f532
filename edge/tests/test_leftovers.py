"""Whatever became of a call, Kamailio keeps nothing of it: what is kept lets requests in, and fills its memory."""

import asyncio
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp
from voxpria_edge.proxy.kamailio import Rpc, RpcError


def is_live(edge: RunningEdge, record: str) -> bool:
    """Tell whether Kamailio takes a call for one that is up."""
    try:
        asyncio.run(Rpc(edge.run_dir / "kamailio.sock").call("htable.get", "live", record))
    except RpcError as error:
        if "Key name doesn't exist" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("carriers", "agents"),
    [
        ("carrier_calls_and_hangs_up", "agent_answers"),
        ("carrier_is_refused", "agent_refuses"),
        ("carrier_asks_too_short_a_session", "agent_wants_a_longer_session"),
        ("carrier_cancels_while_it_rings", "agent_rings_until_canceled"),
        ("carrier_is_refused", None),
    ],
)
def test_a_call_that_is_over_is_not_taken_for_one_that_is_up(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, carriers: str, agents: str | None
) -> None:
    """Without an agent's scenario nobody is there."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp(agents or "agent_answers", folder, address=AGENT, port=agent_port) as agent:
        if agents is None:
            agent.process.kill()
            agent.process.wait(10)
        with sipp(carriers, folder, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
    call = edge.ended_call(carrier.sip_call_id)
    until("it is forgotten", lambda: not is_live(edge, call.id))
