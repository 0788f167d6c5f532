"""Calls that the API places: the callee first, then the agent, and one media session between them."""

import itertools
import re
import signal
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from routes_of_tests import AGENT, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import SCENARIOS, Sipp, body, header, sipp
from udp_front import is_options, udp_front
from voxpria_edge.kit.ids import _base32
from voxpria_routing.edge_api import HangUp, Place
from voxpria_routing.events import Answered, Attempted
from voxpria_routing.snapshot import Number

from tests.ports import free_port

CALLEE = "+13035550188"
_ids = itertools.count(time.time_ns())


@pytest.fixture
def callee_port() -> int:
    return free_port()


def routes(
    edge: RunningEdge,
    number: str,
    callee_port: int,
    agent_port: int,
    password: str | None = None,
    **changes: object,
) -> Number:
    """Give the edge a number whose carrier is at one port, and its agent at the other; both know us as `us`."""
    ours = {"username": "us", "password": password} if password else {}
    carrier = trunk_to(callee_port, id=f"trunk_carrier_{number[1:]}", name="Carrier", **ours, **changes)
    agent = trunk_to(agent_port, id=f"trunk_agent_{number[1:]}", name="Agent", provider="elevenlabs", **ours)
    held = number_on(carrier, number, agent_trunk_id=agent.id, max_duration_seconds=600)
    edge.route([carrier, agent], [held])
    return held


def order(edge: RunningEdge, number: Number, seconds: float = 60, **changes: object) -> Place:
    """Have the edge place a call."""
    call_id = "call_" + _base32(next(_ids))
    wanted = Place(
        id=f"place_{call_id}",
        call_id=call_id,
        account_id=number.account_id,
        mode=number.mode,
        number_id=number.id,
        from_=number.e164,
        to=CALLEE,
        agent_id="agent_7",
        variables={"name": "Ada L\r\nX-Evil: 1"},
        expires_at=datetime.now(UTC) + timedelta(seconds=seconds),
        **changes,
    )
    edge.control_plane.order(wanted)
    return wanted


def busy(folder: Path) -> str:
    """Return a scenario of a server that answers 486."""
    path = folder / "agent_is_busy"
    text = (SCENARIOS / "agent_refuses.xml").read_text()
    path.with_suffix(".xml").write_text(text.replace("SIP/2.0 503", "SIP/2.0 486"))
    return str(path)


def told(edge: RunningEdge, call_id: str) -> Call | None:
    return next((call for call in edge.calls() if call.id == call_id), None)


def is_at(edge: RunningEdge, call_id: str, kind: str) -> Call | None:
    call = told(edge, call_id)
    return call if call and kind in call.kinds else None


def ended(edge: RunningEdge, call_id: str) -> Call:
    return until(f"{call_id} has ended", lambda: is_at(edge, call_id, "ended"))


def test_callee_and_agent_are_connected_and_the_callee_hangs_up(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=callee_port, extra=("-d", "1500")) as callee,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        callee.wait()
        agent.wait()
    call = ended(edge, wanted.call_id)
    assert [call.kinds.count(kind) for kind in ("invited", "ringing", "answered", "ended")] == [1, 1, 1, 1]
    assert (call.invited.direction, call.invited.from_, call.invited.to) == ("outbound", number, CALLEE)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "caller", 200)
    to_callee, to_agent = callee.received[0], agent.received[0]
    assert to_callee.startswith(f"INVITE sip:{CALLEE}@{AGENT}:{callee_port} SIP/2.0")
    assert header(to_callee, "From").startswith(f"<sip:{number}@{AGENT}>;tag=")
    assert header(to_callee, "P-Asserted-Identity") == f"<sip:{number}@{AGENT}>"
    assert not header(to_callee, "X-VoxPria-Var-name")
    assert to_agent.startswith(f"INVITE sip:{number}@{AGENT}:{agent_port} SIP/2.0")
    assert header(to_agent, "X-VoxPria-Call-Id") == call.id
    assert header(to_agent, "X-VoxPria-Agent-Id") == "agent_7"
    assert header(to_agent, "X-VoxPria-Var-name") == "Ada%20L%0D%0AX-Evil%3A%201"
    for invite in (to_callee, to_agent):
        assert f"c=IN IP4 {edge.media_address}\n" in f"{body(invite)}\n"
    assert edge.control_plane.taken.count(wanted.call_id) == 1


def test_the_agent_hangs_up(edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=callee_port) as callee,
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=agent_port, extra=("-d", "500")) as agent,
    ):
        wanted = order(edge, held)
        callee.wait()
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "agent")


@pytest.mark.parametrize("holder", ["callee", "agent"])
def test_either_side_may_hold_and_resume_and_the_other_hears_of_no_change(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path, holder: str
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    scenarios = ("agent_holds_and_resumes", "agent_answers")
    callees, agents = scenarios if holder == "callee" else scenarios[::-1]
    with (
        sipp(callees, folder, address=AGENT, port=callee_port) as callee,
        sipp(agents, folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        side = callee if holder == "callee" else agent
        answers = until("both offers are answered", lambda: _answers_to_offers(side))
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        callee.wait()
        agent.wait()
    on_hold, resumed = (body(answer) for answer in answers)
    assert "a=recvonly" in on_hold
    assert "a=sendrecv" in resumed
    assert all(f"c=IN IP4 {edge.media_address}\n" in f"{text}\n" for text in (on_hold, resumed))
    ports = {line.split()[1] for text in (on_hold, resumed) for line in text.splitlines() if line.startswith("m=audio")}
    assert len(ports) == 1


@pytest.mark.parametrize("who", ["callee", "agent"])
def test_a_refresh_without_an_offer_is_answered_by_one(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path, who: str
) -> None:
    """RFC 3261 section 14.2: some carriers keep their sessions alive so (RFC 4028)."""
    held = routes(edge, number, callee_port, agent_port)
    scenarios = ("agent_refreshes_without_an_offer", "agent_answers")
    callees, agents = scenarios if who == "callee" else scenarios[::-1]
    with (
        sipp(callees, folder, address=AGENT, port=callee_port, extra=("-d", "2000")) as callee,
        sipp(agents, folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        side = callee if who == "callee" else agent
        offer = until("it is offered media", lambda: next((m for m in side.received if _is_offer(m)), None))
        until("it has answered", lambda: sum(m.startswith("ACK") and bool(body(m)) for m in side.sent))
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        callee.wait()
        agent.wait()
    assert f"c=IN IP4 {edge.media_address}\n" in f"{body(offer)}\n"
    assert "a=sendrecv" in body(offer)
    first = next(m for m in side.received if m.startswith("INVITE"))
    assert _audio_port(first) == _audio_port(offer)


def _is_offer(message: str) -> bool:
    return message.startswith("SIP/2.0 200") and "INVITE" in header(message, "CSeq") and bool(body(message))


def _audio_port(message: str) -> str:
    return next(line.split()[1] for line in body(message).splitlines() if line.startswith("m=audio"))


def _answers_to_offers(side: Sipp) -> list[str]:
    found = [m for m in side.received if m.startswith("SIP/2.0 200") and "INVITE" in header(m, "CSeq")]
    return found if len(found) == 2 else []


def test_the_api_hangs_up_while_both_talk(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=callee_port) as callee,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        until("the agent has its ACK", lambda: any(m.startswith("ACK") for m in agent.received))
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        callee.wait()
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "api")


def test_an_agent_that_transfers_the_call_refers_the_callee_and_hears_what_becomes_of_it(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held, refer_to = routes(edge, number, callee_port, agent_port), "<sip:+15555550199@example.com>"
    with (
        sipp("callee_is_transferred", folder, address=AGENT, port=callee_port) as callee,
        sipp("agent_transfers", folder, address=AGENT, port=agent_port, keys=[("refer_to", refer_to)]) as agent,
    ):
        wanted = order(edge, held)
        callee.wait()
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "caller")
    [refer] = {m for m in callee.received if m.startswith("REFER")}
    assert header(refer, "Refer-To") == refer_to
    assert "voxagent-" not in refer
    notify = next(m for m in agent.received if m.startswith("NOTIFY"))
    assert header(notify, "Event") == "refer"
    assert body(notify) == "SIP/2.0 200 OK"


def test_an_agents_server_that_fails_call_after_call_is_passed_over(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    first_port, second_port, most = free_port(), free_port(), 20
    carrier = trunk_to(callee_port, id=f"trunk_carrier_{number[1:]}", name="Carrier")
    second = trunk_to(second_port, id=f"trunk_second_{number[1:]}", name="Second", provider="elevenlabs")
    first = trunk_to(agent_port, id=f"trunk_first_{number[1:]}", name="First", failover_trunk_ids=(second.id,))
    held = number_on(carrier, number, agent_trunk_id=first.id)
    edge.route([carrier, first, second], [held])
    for name in ("callee", "first", "second"):
        (folder / name).mkdir()
    with (
        udp_front(AGENT, agent_port, (AGENT, first_port), is_options),  # or health would find it up again
        sipp("agent_answers", folder / "callee", address=AGENT, port=callee_port, calls=most),
        sipp("agent_refuses", folder / "first", address=AGENT, port=first_port, calls=most) as refusing,
        sipp("agent_answers_and_hangs_up", folder / "second", address=AGENT, port=second_port, calls=most),
    ):
        for count in range(1, most):
            end = ended(edge, order(edge, held).call_id).ended
            assert end is not None
            assert (end.cause, end.by) == ("hangup", "agent")
            if len([m for m in refusing.received if m.startswith("INVITE")]) < count:
                break
        else:
            pytest.fail("every call was tried there")
    assert count > 5


@pytest.mark.parametrize("side", ["callee", "agent"])
def test_another_trunk_stands_in_on_either_side_and_is_offered_what_it_wants(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path, side: str
) -> None:
    other_port = free_port()
    other = trunk_to(other_port, id=f"trunk_other_{number[1:]}", name="The other", codecs=("PCMA",))
    stood_in_for = {"failover_trunk_ids": (other.id,)}
    carrier = trunk_to(
        callee_port, id=f"trunk_carrier_{number[1:]}", name="Carrier", **(stood_in_for if side == "callee" else {})
    )
    agent_trunk = trunk_to(
        agent_port, id=f"trunk_agent_{number[1:]}", name="Agent", **(stood_in_for if side == "agent" else {})
    )
    held = number_on(carrier, number, agent_trunk_id=agent_trunk.id)
    edge.route([carrier, agent_trunk, other], [held])
    for name in ("refusing", "taking"):
        (folder / name).mkdir()
    first_port, unchanged_port = (callee_port, agent_port) if side == "callee" else (agent_port, callee_port)
    with (
        sipp("agent_refuses", folder / "refusing", address=AGENT, port=first_port) as refusing,
        sipp("agent_answers_and_hangs_up", folder / "taking", address=AGENT, port=other_port) as taking,
        sipp("agent_answers", folder, address=AGENT, port=unchanged_port) as unchanged,
    ):
        wanted = order(edge, held)
        for each in (refusing, taking, unchanged):
            each.wait()
    call = ended(edge, wanted.call_id)
    [tried] = [event for event in call.events if isinstance(event, Attempted)]
    first = carrier if side == "callee" else agent_trunk
    assert (tried.trunk_id, tried.cause, tried.sip_code) == (first.id, "rejected", 503)
    [answered] = [event for event in call.events if isinstance(event, Answered)]
    assert answered.trunk_id == (other.id if side == "callee" else carrier.id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller" if side == "callee" else "agent")
    [offer] = {body(m) for m in taking.received if m.startswith("INVITE")}
    assert re.findall(r"^m=audio \d+ RTP/AVP (\d+)", offer, re.M) == ["8"]


def test_max_duration_ends_both_halves_once(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    carrier = trunk_to(callee_port, id=f"trunk_carrier_{number[1:]}", name="Carrier")
    agent_trunk = trunk_to(agent_port, id=f"trunk_agent_{number[1:]}", name="Agent", provider="elevenlabs")
    held = number_on(carrier, number, agent_trunk_id=agent_trunk.id, max_duration_seconds=3)
    edge.route([carrier, agent_trunk], [held])
    with (
        sipp("agent_answers", folder, address=AGENT, port=callee_port) as callee,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        callee.wait()
        agent.wait()
    call = ended(edge, wanted.call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("max_duration", "edge", 200)
    assert call.kinds.count("ended") == 1


def test_the_api_hangs_up_while_the_callee_rings(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with sipp("agent_rings_until_canceled", folder, address=AGENT, port=callee_port) as callee:
        wanted = order(edge, held)
        until("it rings", lambda: is_at(edge, wanted.call_id, "ringing"))
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        callee.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("canceled", "api")


def test_a_callee_that_is_busy_ends_the_call_and_no_agent_hears_of_it(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with sipp(busy(folder), folder, address=AGENT, port=callee_port) as callee:
        wanted = order(edge, held)
        callee.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by, end.sip_code) == ("rejected", "caller", 486)


def test_an_agent_that_refuses_ends_the_call_at_the_callee_and_the_record_says_why(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=callee_port) as callee,
        sipp(busy(folder), folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        callee.wait()
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("rejected", "agent")
    assert "486" in (end.detail or "")


def test_a_call_that_another_edge_takes_is_not_placed(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    edge.control_plane.takes = False
    try:
        lost = order(edge, held)
        time.sleep(1)
    finally:
        edge.control_plane.takes = True
    assert told(edge, lost.call_id) is None


def test_a_call_without_room_waits_and_then_fails_with_the_limit_as_its_reason(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port, max_concurrent_calls=1)
    with (
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=callee_port, extra=("-d", "6000")) as callee,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
    ):
        first = order(edge, held)
        until("the first is answered", lambda: is_at(edge, first.call_id, "answered"))
        second = order(edge, held, seconds=6)
        refused = ended(edge, second.call_id)
        callee.wait()
        agent.wait()
    assert refused.invited.refusal == "too_many_calls"
    assert "1 of 1 calls are open" in refused.invited.explanation.summary


def is_on_disk(edge: RunningEdge, call_id: str) -> bool:
    """Whether the edge's agent has both halves of a call in its spool."""
    with sqlite3.connect(f"file:{edge.folder}/edge/spool.sqlite?mode=ro", uri=True) as spool:
        row = spool.execute("SELECT body FROM calls WHERE id = ?", (call_id,)).fetchone()
    return row is not None and b'"agent":{' in bytes(row[0])


def test_a_call_that_is_half_set_up_when_the_agent_process_is_killed_ends_at_the_callee(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=callee_port) as callee,
        sipp("agent_rings_until_canceled", folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        until("the agent rings", lambda: any(m.startswith("INVITE") for m in agent.received))
        edge.kill_part("agent", signal.SIGKILL)
        edge.start_part("agent")
        callee.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("lost", "edge")
    until("the edge is up again", edge.is_up, 60)


@pytest.mark.parametrize("kill_after", ["taken", "answered"])
def test_an_agent_process_that_is_killed_places_no_call_twice(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path, kill_after: str
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    with (
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=callee_port, extra=("-d", "9000")) as callee,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
    ):
        wanted = order(edge, held)
        if kill_after == "taken":
            until("it is taken", lambda: wanted.call_id in edge.control_plane.taken)
        else:
            until("both are connected, on disk", lambda: is_on_disk(edge, wanted.call_id))
        edge.kill_part("agent", signal.SIGKILL)
        edge.start_part("agent")
        until("the edge is up again", edge.is_up, 60)
        call = ended(edge, wanted.call_id)
        invites = [m for m in callee.received if m.startswith("INVITE")]
        if kill_after == "answered":
            assert call.ended is not None
            assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
            callee.wait()
            agent.wait()
    assert len({header(m, "Via").split("branch=")[1].split(";")[0] for m in invites}) <= 1
    assert [call.kinds.count(kind) for kind in ("invited", "ended")] == [1, 1]


@pytest.mark.parametrize("side", ["callee", "agent"])
def test_who_hangs_up_after_kamailio_was_killed_ends_the_call_at_both_sides(
    edge: RunningEdge, number: str, callee_port: int, agent_port: int, folder: Path, side: str
) -> None:
    held = routes(edge, number, callee_port, agent_port)
    scenarios = "agent_answers_and_hangs_up", "agent_answers"
    callees, agents = scenarios if side == "callee" else scenarios[::-1]
    with (
        sipp(callees, folder, address=AGENT, port=callee_port, extra=("-d", "15000")) as callee,
        sipp(agents, folder, address=AGENT, port=agent_port, extra=("-d", "15000")) as agent,
    ):
        wanted = order(edge, held)
        until("both are connected, on disk", lambda: is_on_disk(edge, wanted.call_id))
        until("both have their ACK", lambda: all(any(m.startswith("ACK") for m in s.received) for s in (callee, agent)))
        edge.kill_part("kamailio")
        edge.start_part("kamailio")
        callee.wait()
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "caller" if side == "callee" else "agent")
    until("the edge is up again", edge.is_up, 60)
