"""Sides whose Contact and media name private addresses: what is sent back reaches them, and they hear each other."""

from pathlib import Path

from routes_of_tests import AGENT, CARRIER, number_on
from rtp_peer import PCMU, rtp_peer
from running_edge import RunningEdge, until
from sipp_tool import sipp
from test_in_dialog import called
from test_media import carrier_and_target, hear_each_other, offer_to

from tests.ports import free_port


def test_both_sides_behind_nat_get_what_is_sent_back(edge: RunningEdge, number: str, folder: Path) -> None:
    """The ACK goes to the agent's Contact, and at the end of the time a BYE to either's."""
    port = free_port()
    trunks = carrier_and_target(port)
    edge.route(trunks, [number_on(trunks[0], number, agent_trunk_id=trunks[1].id, max_duration_seconds=6)])
    to = (edge.address, edge.sip_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp("agent_behind_nat", folder, address=AGENT, port=port, keys=agent.keys) as server,
        sipp("carrier_behind_nat", folder, address=CARRIER, to=to, number=number, keys=caller.keys) as client,
    ):
        agent.talk(until("the agent has an offer", lambda: offer_to(server)))
        caller.talk(until("the carrier has an answer", lambda: answer_to(client)))
        hear_each_other(caller, agent)
        client.wait()
        server.wait()
    call = edge.ended_call(client.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "max_duration"
    assert [m.split()[0] for m in server.received if not m.startswith("SIP/2.0")] == ["INVITE", "ACK", "BYE"]


def answer_to(client: object) -> str:
    received = client.received  # type: ignore[attr-defined]
    return next((m.partition("\n\n")[2] for m in received if m.startswith("SIP/2.0 200")), "")


def test_both_sides_behind_nat_hold_offer_again_and_refresh(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """Each request and each answer within the call finds its way, also where nobody asks for rport (RFC 3581)."""
    scenarios = "carrier_behind_nat_holds", "agent_behind_nat_offers_again"
    call, carrier, agent = called(edge, folder, number, agent_port, *scenarios)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "agent")
    for side, methods in ((carrier, "INVITE ACK UPDATE BYE"), (agent, "INVITE ACK INVITE ACK")):
        requests = [m.split()[0] for m in side.received if not m.startswith("SIP/2.0")]
        assert list(dict.fromkeys(requests)) == list(dict.fromkeys(methods.split()))
    for side, other in ((carrier, "192.168.77.7"), (agent, "10.9.8.7")):
        assert not [message for message in side.received if other in message]
