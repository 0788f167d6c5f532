"""What is heard before a call is answered, when its caller offers late, and around a hold; proven by tones."""

import itertools
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import G722, PCMU, Codec, rtp_peer
from running_edge import Call, RunningEdge, until
from sipp_tool import Sipp, body, sipp
from test_media import hear_each_other
from voxpria_routing.events import Measured


def described(side: Sipp, start: str, count: int = 1) -> str:
    """Return the session description in the so-many-th message that begins so, once it is there."""

    def found() -> str | None:
        bodies = (body(message) for message in side.received if message.startswith(start))
        return next(itertools.islice(filter(None, bodies), count - 1, None), None)

    return until(f"{start} with a session description", found)


def measured(edge: RunningEdge, sip_call_id: str) -> tuple[Call, Measured]:
    """Return a call and what was measured of it, once both have been told."""

    def told() -> tuple[Call, Measured] | None:
        call = edge.ended_call(sip_call_id)
        found = next((event for event in call.events if isinstance(event, Measured)), None)
        return (call, found) if found else None

    return until("the call is measured", told)


def test_early_media_is_heard_both_ways_before_anybody_answers(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to, extra = (edge.address, edge.sip_port), ("-d", "4000")
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp(
            "agent_sends_early_media_until_canceled", folder, address=AGENT, port=agent_port, keys=agent.keys
        ) as server,
        sipp(
            "carrier_listens_before_the_answer",
            folder,
            address=CARRIER,
            to=to,
            number=number,
            keys=caller.keys,
            extra=extra,
        ) as client,
    ):
        agent.talk(described(server, "INVITE"))
        caller.talk(described(client, "SIP/2.0 183"))
        hear_each_other(caller, agent)
        client.wait()
        server.wait()
    call = edge.ended_call(client.sip_call_id)
    assert "answered" not in call.kinds
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("canceled", 487)


@pytest.mark.parametrize("agents", [PCMU, G722])
def test_a_caller_that_offers_late_is_heard_and_hears(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, agents: Codec
) -> None:
    """The agent's offer is in its 200, the caller's answer in its ACK (RFC 3261 section 13.2.1)."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to, extra = (edge.address, edge.sip_port), ("-d", "4000")
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, agents, 1000) as agent,
        sipp("agent_answers_with", folder, address=AGENT, port=agent_port, keys=agent.keys) as server,
        sipp(
            "carrier_answers_in_its_ack",
            folder,
            address=CARRIER,
            to=to,
            number=number,
            keys=caller.keys,
            extra=extra,
        ) as client,
    ):
        caller.talk(described(client, "SIP/2.0 200"))
        agent.talk(described(server, "ACK"))
        hear_each_other(caller, agent)
        client.wait()
        server.wait()
    assert "a=crypto" not in described(client, "SIP/2.0 200")


@pytest.mark.parametrize(("hold", "answer"), [("inactive", "inactive"), ("sendonly", "recvonly")])
def test_a_hold_without_music_is_no_fault_of_the_audio(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, hold: str, answer: str
) -> None:
    """Nobody sends while the call is held; the caller's clock stands still meanwhile, as some phones' do."""
    trunk = trunk_to(agent_port, is_recorded=True)
    edge.route([trunk], [number_on(trunk, number)])
    to, extra = (edge.address, edge.sip_port), ("-d", "4000")
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp(
            "agent_waits_for_its_caller",
            folder,
            address=AGENT,
            port=agent_port,
            keys=[*agent.keys, ("hold", answer)],
        ) as server,
        sipp(
            "carrier_goes_away_for_a_while",
            folder,
            address=CARRIER,
            to=to,
            number=number,
            keys=[*caller.keys, ("hold", hold)],
            extra=extra,
        ) as client,
    ):
        agent.talk(described(server, "INVITE"))
        caller.talk(described(client, "SIP/2.0 200"))
        hear_each_other(caller, agent)
        assert f"a={hold}" in described(server, "INVITE", 2)
        agent.is_quiet = caller.is_quiet = True
        assert f"a={answer}" in described(client, "SIP/2.0 200", 2)
        described(server, "INVITE", 3)
        agent.is_quiet = caller.is_quiet = False
        hear_each_other(caller, agent)
        client.wait()
        server.wait()
    call, found = measured(edge, client.sip_call_id)
    assert found.issues == ()
    for side in (found.caller, found.agent):
        assert side is not None
        assert side.lost == 0
        assert side.jitter_ms < 30
        assert side.mos > 4
    assert call.ended is not None
    assert call.ended.cause == "hangup"


def test_a_call_that_is_held_for_long_is_not_taken_for_dead(
    tmp_path_factory: pytest.TempPathFactory, number: str, agent_port: int, folder: Path
) -> None:
    """Held for three times as long as nobody may be silent in a call that is not."""
    trunk = trunk_to(agent_port)
    extra = ("-d", "15000")
    settings = {"VOXPRIA_MEDIA_TIMEOUT_SECONDS": "5"}
    with (
        RunningEdge.started(tmp_path_factory.mktemp("held"), settings) as edge,
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
    ):
        edge.route([trunk], [number_on(trunk, number)])
        to = (edge.address, edge.sip_port)
        with (
            sipp(
                "agent_waits_for_its_caller",
                folder,
                address=AGENT,
                port=agent_port,
                keys=[*agent.keys, ("hold", "inactive")],
            ) as server,
            sipp(
                "carrier_goes_away_for_a_while",
                folder,
                address=CARRIER,
                to=to,
                number=number,
                keys=[*caller.keys, ("hold", "inactive")],
                extra=extra,
            ) as client,
        ):
            agent.talk(described(server, "INVITE"))
            caller.talk(described(client, "SIP/2.0 200"))
            described(server, "INVITE", 2)
            agent.is_quiet = caller.is_quiet = True
            described(server, "INVITE", 3)
            agent.is_quiet = caller.is_quiet = False
            hear_each_other(caller, agent)
            client.wait()
            server.wait()
        call = edge.ended_call(client.sip_call_id)
        assert call.ended is not None
        assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
