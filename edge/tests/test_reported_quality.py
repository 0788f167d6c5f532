"""A call that is not captured is rated by what its ends report of it: loss and jitter of each direction by itself."""

from pathlib import Path

import pytest
from reporting_peer import Reported, reporting_peer
from routes_of_tests import AGENT, CARRIER, trunk_to
from rtp_peer import PCMU
from running_edge import RunningEdge
from test_early_late_and_held import described, measured, sides
from voxpria_routing.events import Direction


@pytest.mark.parametrize("loser", ["caller", "agent"])
def test_loss_and_jitter_count_against_the_side_whose_packets_they_befell(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, loser: str
) -> None:
    """One side loses a packet in eight, the other's come unevenly; the figures are those that the ends sent."""
    with reporting_peer(CARRIER, PCMU, 440) as caller, reporting_peer(AGENT, PCMU, 1000) as agent:
        losing, uneven = (caller, agent) if loser == "caller" else (agent, caller)
        losing.loses_every, uneven.sways_seconds = 8, 0.015
        with sides(
            edge,
            folder,
            trunk_to(agent_port),
            number,
            ("carrier_offers", caller),
            ("agent_answers_with", agent),
            step_ms=8000,
        ) as (client, server):
            agent.talk(described(server, "INVITE"))
            caller.talk(described(client, "SIP/2.0 200"))
        _, found = measured(edge, client.sip_call_id)
    assert found.source == "rtcp"
    assert found.caller is not None
    assert found.agent is not None
    agrees(found.caller, agent.reported)
    agrees(found.agent, caller.reported)
    lossy, whole = (found.caller, found.agent) if loser == "caller" else (found.agent, found.caller)
    assert 8 < lossy.loss_percent < 17
    assert whole.loss_percent < 3
    assert lossy.mos < whole.mos - 0.5
    assert whole.jitter_ms > 5


def agrees(found: Direction, reported: list[Reported]) -> None:
    """Check that figures are those that the other end reported, at whatever time before the end.

    What was lost since the last report of a side that loses packets itself is not known apart from its own: a packet in
    eight of up to three seconds, on a busy machine.
    """
    for figure, said in (
        (found.loss_percent, [each.loss_percent for each in reported]),
        (found.jitter_ms, [each.jitter_ms for each in reported]),
    ):
        assert min(said) - 1 <= figure <= max(said) + 1
    room = found.packets / 20
    assert any(abs(found.lost - each.lost) <= room for each in reported)
