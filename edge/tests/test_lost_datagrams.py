"""Over UDP any message may be lost once: whoever it is that repeats it, the call goes on, and is one call."""

from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge
from sipp_tool import sipp
from udp_front import first, udp_front

from tests.ports import free_port

ANSWERED = "carrier_calls_and_hangs_up", "agent_answers"
PRACK = "carrier_sends_prack", "agent_wants_prack"
CANCELED = "carrier_cancels_while_it_rings", "agent_rings_until_canceled"


def called(
    edge: RunningEdge, folder: Path, number: str, scenarios: tuple[str, str], side: str, lost: tuple[str, str]
) -> Call:
    """Run a call in which the first message of a kind (how it begins, and its method) is lost on its way at a side."""
    port, inside, before = free_port(), free_port(), free_port()
    trunk = trunk_to(port)
    edge.route([trunk], [number_on(trunk, number)])
    loses = first(*lost)
    with (
        udp_front(AGENT, port, (AGENT, inside), loses if side == "agent" else _none) as at_agent,
        udp_front(CARRIER, before, (edge.address, edge.sip_port), loses if side == "carrier" else _none) as at_carrier,
        sipp(scenarios[1], folder, address=AGENT, port=inside, contact=f"{AGENT}:{port}") as agent,
        # long enough for a second ACK to be there before the BYE
        sipp(
            scenarios[0], folder, address=CARRIER, to=(CARRIER, before), number=number, extra=("-d", "2000")
        ) as carrier,
    ):
        carrier.wait()
        agent.wait()
        assert len(at_agent) + len(at_carrier) == 1
    return edge.ended_call(carrier.sip_call_id)


def _none(_data: bytes) -> bool:
    return False


@pytest.mark.parametrize("side", ["carrier", "agent"])
@pytest.mark.parametrize(
    ("scenarios", "start", "method"),
    [
        *((ANSWERED, start, "INVITE") for start in ("INVITE", "SIP/2.0 180", "SIP/2.0 200")),
        *((ANSWERED, method, method) for method in ("ACK", "BYE")),
        *((PRACK, *lost) for lost in (("SIP/2.0 183", "INVITE"), ("PRACK", "PRACK"), ("SIP/2.0 200", "PRACK"))),
        *((CANCELED, *lost) for lost in (("CANCEL", "CANCEL"), ("SIP/2.0 487", "INVITE"), ("ACK", "ACK"))),
    ],
)
def test_a_message_that_is_lost_once_costs_nobody_the_call(
    edge: RunningEdge, number: str, folder: Path, scenarios: tuple[str, str], start: str, method: str, side: str
) -> None:
    call = called(edge, folder, number, scenarios, side, (start, method))
    assert [call.kinds.count(kind) for kind in ("invited", "ended")] == [1, 1]
    assert call.kinds.count("answered") == (0 if scenarios is CANCELED else 1)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("canceled" if scenarios is CANCELED else "hangup", "caller")
