"""Calls that a provider places through its trunk, out through the number's carrier."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, number_on, trunk_to
from rtp_peer import G722, OPUS, PCMA, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import Call, RunningEdge, free_port, until
from sipp_tool import Sipp, body, header, sipp
from test_media import SUITES, hear_each_other
from voxpria_routing.edge_api import HangUp
from voxpria_routing.snapshot import Trunk

PROVIDER = "127.0.0.7"
"""The address that the provider calls from: no trunk allows it, it has a password."""
CALLEE = "+13035550199"


def trunks(number: str, port: int, **carrier: object) -> tuple[Trunk, Trunk]:
    """Return the trunk of the number's carrier, whose server is at `port`, and that of its agent."""
    out = trunk_to(port, **{"id": f"trunk_out_{number[1:]}", "username": "us", "password": "pass", **carrier})
    agent = trunk_to(
        9,
        id=f"trunk_agent_{number[1:]}",
        name="Agent",
        provider="elevenlabs",
        username=f"el_{number[1:]}",
        password="secret",
        allowed_addresses=(),
    )
    return out, agent


@contextlib.contextmanager
def provider_calls(
    edge: RunningEdge, folder: Path, number: str, agent: Trunk, scenario: str, keys: list[tuple[str, str]]
) -> Iterator[Sipp]:
    """Have the provider call `CALLEE` from `number`, with the password of its trunk."""
    with sipp(
        scenario,
        folder,
        address=PROVIDER,
        to=(edge.address, edge.sip_port),
        number=CALLEE,
        keys=[("caller", number), *keys],
        extra=("-au", agent.username or "", "-ap", "secret"),
    ) as calling:
        yield calling


def placed(edge: RunningEdge, folder: Path, number: str, port: int, **carrier: object) -> tuple[Call, Sipp, Sipp]:
    """Have the provider call `CALLEE` from `number`; return the call, the provider's and the carrier's side."""
    out, agent = trunks(number, port, **carrier)
    edge.route([out, agent], [number_on(out, number, agent_trunk_id=agent.id)])
    (folder / "credentials.csv").write_text("SEQUENTIAL\nus;pass\n")
    answers = ("-inf", str(folder / "credentials.csv"))
    with (
        sipp("agent_challenges_and_answers", folder, address=AGENT, port=port, extra=answers) as callee,
        provider_calls(edge, folder, number, agent, "provider_calls_out", []) as provider,
    ):
        provider.wait()
        callee.wait()
    return edge.ended_call(provider.sip_call_id), provider, callee


def invites(side: Sipp) -> list[str]:
    return [message for message in side.received if message.startswith("INVITE ")]


def test_a_provider_calls_out_through_the_numbers_carrier(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    call, _, callee = placed(edge, folder, number, agent_port)
    assert call.invited.direction == "outbound"
    assert (call.invited.from_, call.invited.to) == (number, CALLEE)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "agent", 200)
    assert call.kinds.count("invited") == 1
    for invite in invites(callee):
        assert invite.startswith(f"INVITE sip:{CALLEE}@{AGENT}:{agent_port} SIP/2.0")
        assert header(invite, "From").startswith(f"<sip:{number}@{AGENT}>;tag=")
        assert header(invite, "To") == f"<sip:{CALLEE}@{AGENT}>"
        assert header(invite, "P-Asserted-Identity") == f"<sip:{number}@{AGENT}>"
        assert invite.count("P-Asserted-Identity") == 1
        assert not header(invite, "Diversion")
        assert 'Digest username="el_' not in invite
        assert f"c=IN IP4 {edge.media_address}\n" in f"{body(invite)}\n"
    assert len(invites(callee)) == 2


def test_a_carrier_that_wants_no_asserted_identity_gets_none(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    _, _, callee = placed(edge, folder, number, agent_port, is_identity_asserted=False)
    assert not any(header(invite, "P-Asserted-Identity") for invite in invites(callee))


@contextlib.contextmanager
def talking(
    edge: RunningEdge,
    folder: Path,
    number: str,
    provider: RtpPeer,
    callee: RtpPeer,
    seconds: int = 600,
    **carrier: object,
) -> Iterator[Sipp]:
    """Have a provider call out, let both talk, and wait for the BYE that each gets; give the provider's side."""
    port = free_port()
    out, agent = trunks(number, port, username=None, password=None, **carrier)
    edge.route([out, agent], [number_on(out, number, agent_trunk_id=agent.id, max_duration_seconds=seconds)])
    with connected(edge, folder, number, agent, port, provider, callee) as (calling, _):
        yield calling


@contextlib.contextmanager
def connected(
    edge: RunningEdge, folder: Path, number: str, agent: Trunk, port: int, provider: RtpPeer, callee: RtpPeer
) -> Iterator[tuple[Sipp, Sipp]]:
    """Do what `talking` does, with the routes as they are and the callee at `port`; give both sides."""
    if callee.suite:
        callee.tag = SUITES.index(callee.suite) + 1
    with (
        sipp("agent_answers_with", folder, address=AGENT, port=port, keys=callee.keys) as called,
        provider_calls(edge, folder, number, agent, "provider_is_hung_up_on", provider.keys) as calling,
    ):
        callee.talk(until("the callee has an offer", lambda: _sdp(called, "INVITE")))
        provider.talk(until("the provider has an answer", lambda: _sdp(calling, "SIP/2.0 200")))
        yield calling, called
        calling.wait()
        called.wait()
    until("both have their BYE", lambda: all(any(m.startswith("BYE") for m in s.received) for s in (calling, called)))


def _sdp(side: Sipp, start: str) -> str:
    return next((body(message) for message in side.received if message.startswith(start) and body(message)), "")


@pytest.mark.parametrize(("callees", "listed"), [(PCMA, ()), (G722, ("G722",)), (OPUS, ("opus",))])
def test_sides_that_share_no_codec_hear_each_other_and_the_api_hangs_up(
    edge: RunningEdge, number: str, folder: Path, callees: Codec, listed: tuple[str, ...]
) -> None:
    with (
        rtp_peer(PROVIDER, PCMU, 440) as provider,
        rtp_peer(AGENT, callees, 1000) as callee,
        talking(edge, folder, number, provider, callee, codecs=listed) as calling,
    ):
        hear_each_other(provider, callee)
        call = answered(edge, calling)
        edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "api", 200)
    assert (call.kinds.count("ended"), call.invited.direction) == (1, "outbound")


def test_max_duration_ends_both_sides(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(PROVIDER, PCMU, 440) as provider,
        rtp_peer(AGENT, PCMU, 1000) as callee,
        talking(edge, folder, number, provider, callee, seconds=3) as calling,
    ):
        pass
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("max_duration", "edge", 200)
    assert call.kinds.count("ended") == 1


def answered(edge: RunningEdge, side: Sipp) -> Call:
    return until(
        "it is answered",
        lambda: next((call for call in edge.calls(side.sip_call_id) if "answered" in call.kinds), None),
    )


def test_the_trace_names_the_sides(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    call, _, _ = placed(edge, folder, number, agent_port)
    trace = until("the whole trace", lambda: _whole(edge, call.id))
    sides = {(m.leg, m.is_received) for m in trace.messages if m.text.startswith("INVITE ")}
    assert sides == {("agent", True), ("carrier", False)}


@pytest.mark.parametrize("caller", ["+15557770001", "anonymous"])
def test_nobody_calls_out_from_a_number_that_is_not_the_trunks(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, caller: str
) -> None:
    out, agent = trunks(number, agent_port)
    edge.route([out, agent], [number_on(out, number, agent_trunk_id=agent.id)])
    to, login = (edge.address, edge.sip_port), ("-au", agent.username or "", "-ap", "secret")
    keys = [("caller", caller)]
    with sipp("provider_is_refused", folder, address=PROVIDER, to=to, number=CALLEE, keys=keys, extra=login) as side:
        side.wait()
    assert side.final_code("2 INVITE") == 403
    call = edge.ended_call(side.sip_call_id)
    assert call.invited.explanation.mend


def _whole(edge: RunningEdge, call_id: str):
    found = [t for t in edge.control_plane.traces.get(call_id, []) if any(m.text.startswith("BYE") for m in t.messages)]
    return found[-1] if found else None
