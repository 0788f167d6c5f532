"""A trunk's server that does not take a call, and what stands in for it."""

from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import SCENARIOS, header, sipp
from voxpria_routing.events import Attempted

from tests.ports import free_port


def refusing_with(code: int, folder: Path) -> str:
    """Return a scenario that refuses with `code`: SIPp takes none as a parameter."""
    scenario = (SCENARIOS / "agent_refuses.xml").read_text().replace("SIP/2.0 503", f"SIP/2.0 {code}")
    path = folder / f"agent_refuses_{code}"
    path.with_suffix(".xml").write_text(scenario)
    return str(path)


@pytest.mark.parametrize("code", [503, 480, 408, 302])
def test_another_trunk_takes_the_call_where_its_own_does_not(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, code: int
) -> None:
    second_port = free_port()
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_b",))
    second = trunk_to(second_port, id="trunk_b", name="The second")
    edge.route([first, second], [number_on(first, number)])
    to = (edge.address, edge.sip_port)
    (folder / "second").mkdir()
    with (
        sipp(refusing_with(code, folder), folder, address=AGENT, port=agent_port) as refusing,
        sipp("agent_answers", folder / "second", address=AGENT, port=second_port) as answering,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        refusing.wait()
        answering.wait()
    call = edge.ended_call(carrier.sip_call_id)
    [tried] = [event for event in call.events if isinstance(event, Attempted)]
    assert (tried.trunk_id, tried.sip_code, tried.cause) == ("trunk_a", code, "rejected")
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("hangup", 200)
    assert str(code) not in [message.split()[1] for message in carrier.received if message.startswith("SIP")]
    # one set of headers, and one Record-Route of ours, whichever try it is
    assert answering.received[0].count("X-VoxPria-Call-Id:") == 1
    assert header(answering.received[0], "X-VoxPria-Call-Id") == call.id


@pytest.mark.parametrize(("code", "passed_on"), [(503, 503), (302, 502)])
def test_a_failure_of_one_server_keeps_no_other_calls_away(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, code: int, passed_on: int
) -> None:
    """A carrier holds Retry-After against the whole edge (RFC 3261 section 21.5.4); a redirection leads nowhere."""
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    with (
        sipp(refusing_with(code, folder), folder, address=AGENT, port=agent_port) as refusing,
        sipp("carrier_is_refused", folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number) as carrier,
    ):
        carrier.wait()
        refusing.wait()
    assert carrier.final_code() == passed_on
    assert not header(carrier.received[-1], "Retry-After")
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert ("redirects the call (302" in str(call.ended.detail)) is (code == 302)


@pytest.mark.parametrize("code", [486, 603, 404])
def test_what_the_caller_or_the_called_one_caused_ends_the_call(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, code: int
) -> None:
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_b",))
    second = trunk_to(free_port(), id="trunk_b", name="The second")
    edge.route([first, second], [number_on(first, number)])
    with (
        sipp(refusing_with(code, folder), folder, address=AGENT, port=agent_port) as refusing,
        sipp("carrier_is_refused", folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number) as carrier,
    ):
        carrier.wait()
        refusing.wait()
    assert carrier.final_code() == code
    assert "said by the server" in header(carrier.received[-1], "Reason")
    call = edge.ended_call(carrier.sip_call_id)
    assert "attempted" not in call.kinds
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("rejected", code)
    assert "said by the server" in str(call.ended.detail)


def test_a_server_that_can_not_be_reached_says_why_and_the_next_is_tried(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunks = [
        trunk_to(5060, server="no-such-host.invalid", failover_trunk_ids=("trunk_b", "trunk_c")),
        trunk_to(free_port(), id="trunk_b", name="The second", transport="tcp"),
        trunk_to(agent_port, id="trunk_c", name="The third"),
    ]
    edge.route(trunks, [number_on(trunks[0], number)])
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as answering,
        sipp(
            "carrier_calls_and_hangs_up", folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number
        ) as carrier,
    ):
        carrier.wait()
        answering.wait()
    edge.ended_call(carrier.sip_call_id)

    def told() -> dict[str, Attempted]:
        [call] = edge.calls(carrier.sip_call_id)
        return {event.trunk_id: event for event in call.events if isinstance(event, Attempted)}

    # the reasons are looked for while the call goes on
    until("both tries are told of", lambda: set(told()) == {"trunk_a", "trunk_b"})
    tries = told()
    assert {event.cause for event in tries.values()} == {"unreachable"}
    assert "DNS" in str(tries["trunk_a"].detail)
    assert "refuses connections" in str(tries["trunk_b"].detail)


def test_a_trunk_whose_server_is_this_edge_is_no_way_in_a_circle(edge: RunningEdge, number: str, folder: Path) -> None:
    """Its own credentials would let the call in again and again (RFC 3261 section 16.3)."""
    trunk = trunk_to(edge.sip_port, server=edge.address, username="user", password="pass")
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number) as carrier:
        carrier.wait()
    assert carrier.final_code() == 482
    assert edge.ended_call(carrier.sip_call_id).ended is not None
    assert [call.invited.to for call in edge.calls()].count(number) == 1


def test_the_rate_of_a_stand_in_is_kept_for_the_calls_that_it_stands_by_for(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    second_port = free_port()
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_rare",))
    # one call in 1000 s: the first call takes it, if only to be sure of it
    second = trunk_to(second_port, id="trunk_rare", name="The second", max_calls_per_second=0.001)
    edge.route([first, second], [number_on(first, number), number_on(first, f"{number}1", agent_trunk_id=second.id)])
    to = (edge.address, edge.sip_port)
    (folder / "second").mkdir()
    (folder / "other").mkdir()
    with (
        sipp("agent_rings_then_fails", folder, address=AGENT, port=agent_port, extra=("-d", "3000")) as refusing,
        sipp("agent_answers", folder / "second", address=AGENT, port=second_port) as answering,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        until("the first call rings", lambda: any("180 Ringing" in m for m in carrier.received))
        with sipp("carrier_is_refused", folder / "other", address=CARRIER, to=to, number=f"{number}1") as crowded:
            crowded.wait()
        assert crowded.final_code() == 503
        carrier.wait()
        refusing.wait()
        answering.wait()
    assert edge.ended_call(carrier.sip_call_id).kinds.count("attempted") == 1
    assert "0.001 calls a second" in edge.ended_call(crowded.sip_call_id).invited.explanation.summary
