"""The quality of a call as it is told is that of its packets, each direction for itself."""

from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER
from rtp_peer import PCMU, rtp_peer
from running_edge import RunningEdge
from test_early_late_and_held import measured
from test_media import hear_each_other, talking
from voxpria_edge.media import quality

LOST_PERCENT = 10


def test_packets_that_one_side_loses_lower_its_score_alone(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        talking(edge, folder, number, caller, agent, {"is_recorded": True}) as (client, _),
    ):
        agent.loses_every = 100 // LOST_PERCENT
        hear_each_other(caller, agent)
    _, found = measured(edge, client.sip_call_id)
    assert found.source == "packets"
    assert found.caller is not None
    assert found.agent is not None
    assert found.caller.lost == 0
    assert found.agent.loss_percent == pytest.approx(LOST_PERCENT, abs=1.5)
    # ITU-T G.107: no delay beside the jitter's is heard at the edge
    delay_ms = quality.playout_delay_ms(found.agent.jitter_ms)
    score = quality.mean_opinion_score(quality.rating(found.agent.loss_percent, delay_ms))
    assert found.agent.mos == pytest.approx(score, abs=0.02)
    assert found.agent.mos < 3.6
    assert found.caller.mos > 4
    assert found.issues == ()
