"""What is heard before a call is answered, when its caller offers late, and around a hold; proven by tones."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import G722, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import Call, RunningEdge, until
from sipp_tool import SCENARIOS, Sipp, body, sipp
from test_media import hear_each_other
from voxpria_routing.events import Measured
from voxpria_routing.snapshot import Trunk


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


@contextlib.contextmanager
def sides(
    edge: RunningEdge,
    folder: Path,
    trunk: Trunk,
    number: str,
    carriers: tuple[str, RtpPeer],
    agents: tuple[str, RtpPeer],
    *,
    hold: tuple[str, str] = ("", ""),
    step_ms: int = 6000,
) -> Iterator[tuple[Sipp, Sipp]]:
    """Run a carrier's scenario against one of the trunk's server's, each with its media, to both ends.

    `hold` is how the carrier holds and how that is answered, `step_ms` how long each step of the carrier's lasts.
    """
    edge.route([trunk], [number_on(trunk, number)])
    with (
        sipp(agents[0], folder, address=AGENT, port=trunk.port, keys=[*agents[1].keys, ("hold", hold[1])]) as server,
        sipp(
            carriers[0],
            folder,
            address=CARRIER,
            to=(edge.address, edge.sip_port),
            number=number,
            keys=[*carriers[1].keys, ("hold", hold[0])],
            extra=("-d", str(step_ms)),
        ) as client,
    ):
        yield client, server
        client.wait()
        server.wait()


def resume(*peers: RtpPeer) -> None:
    """Have them talk again, and hear only what is said from now on."""
    for peer in peers:
        peer.forget()
        peer.is_quiet = False


HELD = "carrier_goes_away_for_a_while", "agent_waits_for_its_caller"


def test_early_media_is_heard_both_ways_before_anybody_answers(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sides(
            edge,
            folder,
            trunk_to(agent_port),
            number,
            ("carrier_listens_before_the_answer", caller),
            ("agent_sends_early_media_until_canceled", agent),
        ) as (client, server),
    ):
        agent.talk(described(server, "INVITE"))
        caller.talk(described(client, "SIP/2.0 183"))
        hear_each_other(caller, agent)
    call = edge.ended_call(client.sip_call_id)
    assert "answered" not in call.kinds
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("canceled", 487)


@pytest.mark.parametrize("agents", [PCMU, G722])
def test_a_caller_that_offers_late_is_heard_and_hears(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, agents: Codec
) -> None:
    """The agent's offer is in its 200, the caller's answer in its ACK (RFC 3261 section 13.2.1)."""
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, agents, 1000) as agent,
        sides(
            edge,
            folder,
            trunk_to(agent_port),
            number,
            ("carrier_answers_in_its_ack", caller),
            ("agent_answers_with", agent),
        ) as (client, server),
    ):
        caller.talk(described(client, "SIP/2.0 200"))
        agent.talk(described(server, "ACK"))
        hear_each_other(caller, agent)
    assert "a=crypto" not in described(client, "SIP/2.0 200")


@pytest.mark.parametrize("hold", [("inactive", "inactive"), ("sendonly", "recvonly")])
def test_a_hold_without_music_is_no_fault_of_the_audio(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, hold: tuple[str, str]
) -> None:
    """Nobody sends while the call is held; both clocks stand still meanwhile, as some phones' do."""
    trunk = trunk_to(agent_port, is_recorded=True)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sides(edge, folder, trunk, number, (HELD[0], caller), (HELD[1], agent), hold=hold) as (client, server),
    ):
        agent.talk(described(server, "INVITE"))
        caller.talk(described(client, "SIP/2.0 200"))
        hear_each_other(caller, agent)
        assert f"a={hold[0]}" in described(server, "INVITE", 2)
        agent.is_quiet = caller.is_quiet = True
        assert f"a={hold[1]}" in described(client, "SIP/2.0 200", 2)
        described(server, "INVITE", 3)
        resume(caller, agent)
        hear_each_other(caller, agent)
    call, found = measured(edge, client.sip_call_id)
    assert found.issues == ()
    for side in (found.caller, found.agent):
        assert side is not None
        assert side.lost == 0
    assert call.ended is not None
    assert call.ended.cause == "hangup"


CHALLENGE = '401 Unauthorized\n      WWW-Authenticate: Digest realm="here", nonce="once"'


@pytest.mark.parametrize(
    ("answer", "told"),
    [("491 Request Pending", 491), (CHALLENGE, 500)],
    ids=["refused", "challenged for credentials that the trunk has not"],
)
def test_a_codec_that_is_changed_in_vain_stays(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, answer: str, told: int
) -> None:
    """RFC 3261 section 14.1: an offer that is refused changes nothing, though rtpengine had acted on it."""
    scenarios = [folder / "carrier_changes_its_codec_in_vain", folder / "agent_refuses_a_new_offer"]
    for scenario in scenarios:
        text = (SCENARIOS / f"{scenario.name}.xml").read_text().replace("491 Request Pending", answer)
        scenario.with_suffix(".xml").write_text(text.replace('response="491"', f'response="{told}"'))
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sides(
            edge,
            folder,
            trunk_to(agent_port),
            number,
            (str(scenarios[0]), caller),
            (str(scenarios[1]), agent),
        ) as (client, server),
    ):
        agent.talk(described(server, "INVITE"))
        caller.talk(described(client, "SIP/2.0 200"))
        described(server, "INVITE", 2)
        until("the refusal", lambda: f"SIP/2.0 {told}" in client.messages)
        caller.forget()
        agent.forget()
        hear_each_other(caller, agent)


def test_a_call_that_is_held_for_long_is_not_taken_for_dead(
    tmp_path_factory: pytest.TempPathFactory, number: str, agent_port: int, folder: Path
) -> None:
    """Held for three times as long as nobody may be silent in a call that is not."""
    settings, hold = {"VOXPRIA_MEDIA_TIMEOUT_SECONDS": "5"}, ("inactive", "inactive")
    with (
        RunningEdge.started(tmp_path_factory.mktemp("held"), settings) as edge,
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
    ):
        with sides(
            edge,
            folder,
            trunk_to(agent_port),
            number,
            (HELD[0], caller),
            (HELD[1], agent),
            hold=hold,
            step_ms=15_000,
        ) as (client, server):
            agent.talk(described(server, "INVITE"))
            caller.talk(described(client, "SIP/2.0 200"))
            described(server, "INVITE", 2)
            agent.is_quiet = caller.is_quiet = True
            described(server, "INVITE", 3)
            resume(caller, agent)
            hear_each_other(caller, agent)
        call = edge.ended_call(client.sip_call_id)
        assert call.ended is not None
        assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
