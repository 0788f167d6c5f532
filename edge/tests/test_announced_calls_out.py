"""Calls that a provider places, whose callee is told before they are recorded: the provider is answered last."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, number_on
from rtp_peer import G722, PCMA, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import RunningEdge, free_port, until
from sipp_tool import Sipp, header, sipp
from test_announcements import (
    LONG,
    SHORT,
    SPOKEN_CORRELATION,
    event,
    heard_by,
    is_recorded,
    likeness,
    recording,
    sound_of,
)
from test_calls_out import CALLEE, PROVIDER, answered, connected, provider_calls, trunks
from test_media import SUITE, hear_each_other
from test_placed_calls import busy
from voxpria_routing.edge_api import HangUp
from voxpria_routing.events import Answered, Attempted, RecordingFailed
from voxpria_routing.snapshot import Announcement, Trunk


def routes(
    edge: RunningEdge, number: str, port: int, announcement: Announcement, seconds: int = 600, **carrier: object
) -> Trunk:
    """Give the edge a number whose carrier, at `port`, has this announcement; return its agent's trunk."""
    given = {"username": None, "password": None, "is_recorded": True, "announcement": announcement, **carrier}
    out, agent = trunks(number, port, **given)
    edge.route([out, agent], [number_on(out, number, agent_trunk_id=agent.id, max_duration_seconds=seconds)])
    sound_of(edge, announcement)
    return agent


@contextlib.contextmanager
def talking(
    edge: RunningEdge,
    folder: Path,
    number: str,
    provider: RtpPeer,
    callee: RtpPeer,
    seconds: int = 600,
    **carrier: object,
) -> Iterator[tuple[Sipp, Sipp]]:
    """Have a provider call out, let both talk, and wait for the BYE that each gets; give both sides."""
    port = free_port()
    agent = routes(edge, number, port, SHORT, seconds, **carrier)
    with connected(edge, folder, number, agent, port, provider, callee) as sides:
        yield sides


@pytest.mark.parametrize(
    ("callees", "suite", "policy"),
    [(PCMU, None, {}), (PCMA, None, {"codecs": ("PCMA",)}), (G722, SUITE, {"media_encryption": "required"})],
)
def test_a_callee_is_told_before_the_provider_is_answered_and_so_is_the_recording(
    edge: RunningEdge, number: str, folder: Path, callees: Codec, suite: str | None, policy: dict[str, object]
) -> None:
    if callees is G722:
        policy = {**policy, "codecs": ("G722",)}
    with (
        rtp_peer(PROVIDER, PCMU, 440) as provider,
        rtp_peer(AGENT, callees, 1000, suite) as callee,
        talking(edge, folder, number, provider, callee, **policy) as (calling, called),
    ):
        sought = sound_of(edge, SHORT)
        assert len(heard_by(callee)) > len(sought) / 2  # before there was an answer
        hear_each_other(provider, callee)
        assert likeness(heard_by(callee), sought) > SPOKEN_CORRELATION
        assert likeness(heard_by(provider), sought) < SPOKEN_CORRELATION
        call = answered(edge, calling)
        edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "api", 200)
    assert [call.kinds.count(kind) for kind in ("invited", "ringing", "answered", "ended")] == [1, 1, 1, 1]
    answer = event(call, Answered)
    assert isinstance(answer, Answered)
    assert answer.trunk_id == f"trunk_out_{number[1:]}"
    [invite] = {m for m in called.received if m.startswith("INVITE ")}
    assert header(invite, "From").startswith(f"<sip:{number}@{AGENT}>;tag=")
    assert header(invite, "To") == f"<sip:{CALLEE}@{AGENT}>"
    assert header(invite, "P-Asserted-Identity") == f"<sip:{number}@{AGENT}>"
    assert not header(invite, "Diversion")
    assert not header(invite, "Authorization")
    assert {header(m, "X-VoxPria-Call-Id") for m in calling.received if m[:11] in ("SIP/2.0 180", "SIP/2.0 200")} - {
        ""
    } == {call.id}
    left, right = recording(edge, folder, call.id)
    assert likeness(right, sought) > SPOKEN_CORRELATION
    assert likeness(left, sought) < SPOKEN_CORRELATION
    assert left.any()
    assert right.any()


def test_the_trace_names_the_sides(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(PROVIDER, PCMU, 440) as provider,
        rtp_peer(AGENT, PCMU, 1000) as callee,
        talking(edge, folder, number, provider, callee) as (calling, _),
    ):
        call = answered(edge, calling)
        edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))
    call = edge.ended_call(calling.sip_call_id)

    def whole() -> set[tuple[str, bool, str]] | None:
        for trace in edge.control_plane.traces.get(call.id, []):
            found = {(m.leg, m.is_received, m.text.split()[0]) for m in trace.messages}
            if {("agent", False, "BYE"), ("carrier", False, "BYE")} <= found:
                return found
        return None

    messages = until("the whole trace", whole)
    assert {(leg, is_received) for leg, is_received, word in messages if word == "INVITE"} == {
        ("agent", True),
        ("carrier", False),
    }


def test_max_duration_ends_both_sides(edge: RunningEdge, number: str, folder: Path) -> None:
    with (
        rtp_peer(PROVIDER, PCMU, 440) as provider,
        rtp_peer(AGENT, PCMU, 1000) as callee,
        talking(edge, folder, number, provider, callee, seconds=8) as (calling, _),
    ):
        pass
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("max_duration", "edge", 200)
    assert call.kinds.count("ended") == 1


def test_a_busy_callee_is_busy_for_the_provider(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    agent = routes(edge, number, agent_port, SHORT)
    with (
        sipp(busy(folder), folder, address=AGENT, port=agent_port) as called,
        provider_calls(edge, folder, number, agent, "provider_is_refused", []) as calling,
    ):
        calling.wait()
        called.wait()
    assert calling.final_code("2 INVITE") == 486
    assert "said by the server" in header(calling.received[-1], "Reason")
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("rejected", "caller", 486)
    assert "said by the server" in str(call.ended.detail)
    assert "answered" not in call.kinds


def test_another_carrier_takes_the_call_where_the_first_does_not(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    second_port = free_port()
    first, agent = trunks(
        number,
        agent_port,
        username=None,
        password=None,
        is_recorded=True,
        announcement=SHORT,
        failover_trunk_ids=(f"trunk_second_{number[1:]}",),
    )
    second, _ = trunks(number, second_port, id=f"trunk_second_{number[1:]}", username=None, password=None)
    edge.route([first, second, agent], [number_on(first, number, agent_trunk_id=agent.id)])
    sound_of(edge, SHORT)
    (folder / "second").mkdir()
    with (
        sipp("agent_refuses", folder, address=AGENT, port=agent_port) as refusing,
        sipp("agent_answers", folder / "second", address=AGENT, port=second_port) as answering,
        provider_calls(edge, folder, number, agent, "provider_calls_out", []) as calling,
    ):
        for side in (calling, refusing, answering):
            side.wait()
    call = edge.ended_call(calling.sip_call_id)
    tried, answer = event(call, Attempted), event(call, Answered)
    assert isinstance(tried, Attempted)
    assert isinstance(answer, Answered)
    assert (tried.trunk_id, tried.cause, tried.sip_code) == (first.id, "rejected", 503)
    assert answer.trunk_id == second.id
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "agent")


def test_a_provider_that_gives_up_while_it_rings_cancels_the_callee(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent = routes(edge, number, agent_port, SHORT)
    with (
        sipp("agent_rings_until_canceled", folder, address=AGENT, port=agent_port) as called,
        provider_calls(edge, folder, number, agent, "provider_cancels_while_it_rings", []) as calling,
    ):
        calling.wait()
        called.wait()
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "agent", 487)
    assert "answered" not in call.kinds


def test_a_provider_that_gives_up_while_the_callee_is_told_ends_the_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent = routes(edge, number, agent_port, LONG)
    with (
        sipp("callee_answers_at_once", folder, address=AGENT, port=agent_port) as called,
        # it hears of no ringing before the callee has answered
        provider_calls(edge, folder, number, agent, "provider_cancels_while_it_rings", []) as calling,
    ):
        calling.wait()
        called.wait()
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "agent", 200)
    until("there is no recording", lambda: event(edge.ended_call(calling.sip_call_id), RecordingFailed))
    assert not is_recorded(edge, call.id)


def test_a_callee_that_hangs_up_while_it_is_told_declines_the_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent = routes(edge, number, agent_port, LONG)
    with (
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=agent_port, extra=("-d", "500")) as called,
        provider_calls(edge, folder, number, agent, "provider_is_refused", []) as calling,
    ):
        called.wait()
        calling.wait()
    assert calling.final_code("2 INVITE") == 603
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "caller", 200)
    failed = until("there is no recording", lambda: event(edge.ended_call(calling.sip_call_id), RecordingFailed))
    assert isinstance(failed, RecordingFailed)
    assert not is_recorded(edge, call.id)


def test_an_agent_process_that_is_killed_while_the_callee_is_told_leaves_nobody_waiting(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent = routes(edge, number, agent_port, LONG)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as called,
        provider_calls(edge, folder, number, agent, "provider_is_refused", []) as calling,
    ):
        until("the callee has its ACK", lambda: any(m.startswith("ACK") for m in called.received))
        until("it is told of", lambda: edge.calls(calling.sip_call_id))
        edge.kill_part("agent")
        edge.start_part("agent")
        calling.wait()
        called.wait()
    assert calling.final_code("2 INVITE") == 503
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("lost", "edge")
    until("the edge is up again", edge.is_up, 60)


def test_an_agent_that_transfers_the_call_refers_the_callee(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent, refer_to = routes(edge, number, agent_port, SHORT), "<sip:+15555550199@example.com>"
    with (
        sipp("callee_is_transferred", folder, address=AGENT, port=agent_port) as called,
        provider_calls(edge, folder, number, agent, "provider_transfers", [("refer_to", refer_to)]) as calling,
    ):
        calling.wait()
        called.wait()
    [refer] = {m for m in called.received if m.startswith("REFER")}
    assert header(refer, "Refer-To") == refer_to
    call = edge.ended_call(calling.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
