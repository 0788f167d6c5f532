"""Media between the callee and the agent of a call that the API places, proven by tones: codecs and encryption."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, number_on, trunk_to
from rtp_peer import G722, OPUS, PCMA, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import RunningEdge, free_port, until
from sipp_tool import Sipp, sipp
from test_media import SUITE, SUITES, hear_each_other, offer_to
from test_placed_calls import ended, order
from voxpria_routing.edge_api import HangUp


@contextlib.contextmanager
def connected(
    edge: RunningEdge,
    folder: Path,
    number: str,
    callee: RtpPeer,
    agent: RtpPeer,
    carrier: dict[str, object] | None = None,
    agents: dict[str, object] | None = None,
    scenario: str = "agent_answers_with",
) -> Iterator[Sipp]:
    """Place a call between two peers, and let them talk; give the agent's server. The API hangs up on the way out."""
    callee_port, agent_port = free_port(), free_port()
    out = trunk_to(callee_port, id=f"trunk_carrier_{number[1:]}", name="Carrier", **(carrier or {}))
    to_agent = trunk_to(
        agent_port, **{"id": f"trunk_agent_{number[1:]}", "name": "Agent", "provider": "elevenlabs", **(agents or {})}
    )
    held = number_on(out, number, agent_trunk_id=to_agent.id)
    edge.route([out, to_agent], [held])
    if callee.suite:
        callee.tag = SUITES.index(callee.suite) + 1
    if agent.suite:  # the callee's own suite comes first in what the agent is offered, by the tag that it has
        suites = dict.fromkeys([callee.suite or SUITES[0], *SUITES])
        agent.tag = list(suites).index(agent.suite) + (callee.tag if callee.suite else 1)
    with (
        sipp("agent_answers_with", folder, address=AGENT, port=callee_port, keys=callee.keys) as callee_side,
        sipp(scenario, folder, address=AGENT, port=agent_port, keys=agent.keys) as agent_side,
    ):
        wanted = order(edge, held)
        callee.talk(until("the callee has an offer", lambda: offer_to(callee_side)))
        until("the agent has its ACK", lambda: _is_acknowledged(agent_side), 60)
        agent.talk(_last_offer(agent_side))
        yield agent_side
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        callee_side.wait()
        agent_side.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "api")


def _is_acknowledged(side: Sipp) -> bool:
    answered = [place for place, message in enumerate(side.sent) if message.startswith("SIP/2.0 200")]
    return bool(answered) and any(message.startswith("ACK") for message in side.received[-1:])


def _last_offer(side: Sipp) -> str:
    return next(m.partition("\n\n")[2] for m in reversed(side.received) if m.startswith("INVITE"))


@pytest.mark.parametrize(
    ("callees", "agents", "of_carrier", "of_agent"),
    [
        (PCMU, PCMU, (), ()),
        (PCMU, OPUS, (), ("opus",)),
        (PCMA, G722, (), ("G722", "PCMA")),
        (OPUS, PCMU, (), ()),
        (G722, OPUS, ("G722",), ("opus",)),
    ],
)
def test_callee_and_agent_hear_each_other_whatever_each_of_them_speaks(
    edge: RunningEdge,
    number: str,
    folder: Path,
    callees: Codec,
    agents: Codec,
    of_carrier: tuple[str, ...],
    of_agent: tuple[str, ...],
) -> None:
    with (
        rtp_peer(AGENT, callees, 440) as callee,
        rtp_peer(AGENT, agents, 1000) as agent,
        connected(edge, folder, number, callee, agent, {"codecs": of_carrier}, {"codecs": of_agent}) as server,
    ):
        hear_each_other(callee, agent)
        if of_agent:
            names = [line.split()[1].split("/")[0] for line in offer_to(server).splitlines() if "a=rtpmap" in line]
            assert [name for name in names if name != "telephone-event"] == list(of_agent)


@pytest.mark.parametrize("agents", [None, SUITE, "AEAD_AES_256_GCM"])
@pytest.mark.parametrize("callees", [None, SUITE])
def test_each_half_is_encrypted_as_its_trunk_says(
    edge: RunningEdge, number: str, folder: Path, callees: str | None, agents: str | None
) -> None:
    policies: list[dict[str, object]] = [
        {"media_encryption": "required" if suite else "disabled"} for suite in (callees, agents)
    ]
    with (
        rtp_peer(AGENT, PCMU, 440, callees) as callee,
        rtp_peer(AGENT, PCMU, 1000, agents) as agent,
        connected(edge, folder, number, callee, agent, *policies),
    ):
        hear_each_other(callee, agent)


def test_a_server_that_takes_nothing_of_the_first_offer_is_offered_all_there_is(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    with (
        rtp_peer(AGENT, PCMU, 440) as callee,
        rtp_peer(AGENT, G722, 1000) as agent,
        connected(edge, folder, number, callee, agent, scenario="agent_speaks_something_else") as server,
    ):
        hear_each_other(callee, agent)
        offers = [message for message in server.received if message.startswith("INVITE")]
        assert ["G722" in offer for offer in offers] == [False, True]


def test_digits_that_the_callee_presses_reach_the_agent(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(AGENT, PCMU, 440) as callee,
        rtp_peer(AGENT, G722, 1000) as agent,
        connected(edge, folder, number, callee, agent, agents={"codecs": ("G722",)}),
    ):
        hear_each_other(callee, agent)
        for digit in (1, 11):
            callee.press(digit)
        until("both digits came", lambda: agent.heard.events == [1, 11], 30)
