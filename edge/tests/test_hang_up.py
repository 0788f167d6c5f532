"""A call ended because the API was told to: at both sides, answered or ringing, and once."""

from pathlib import Path

from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import SCENARIOS, header, sipp
from voxpria_routing.edge_api import HangUp


def is_at(edge: RunningEdge, number: str, kind: str) -> Call | None:
    return next((call for call in edge.calls() if call.invited.to == number and kind in call.kinds), None)


def hang_up(edge: RunningEdge, call: Call) -> None:
    edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))


def test_a_call_that_is_up_ends_at_both_sides(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        hang_up(edge, until("it is answered", lambda: is_at(edge, number, "answered")))
        carrier.wait()
        agent.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "api", 200)
    assert call.kinds.count("ended") == 1


def test_the_bye_to_a_callers_other_side_counts_on_however_high_the_caller_began(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk, first = trunk_to(agent_port), 1_205_654_321
    edge.route([trunk], [number_on(trunk, number)])
    high = folder / "carrier_counts_high"
    text = (SCENARIOS / "carrier_is_hung_up_on.xml").read_text()
    high.with_suffix(".xml").write_text(text.replace("CSeq: 1 ", f"CSeq: {first} "))
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp(str(high), folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number) as carrier,
    ):
        hang_up(edge, until("it is answered", lambda: is_at(edge, number, "answered")))
        carrier.wait()
        agent.wait()
    (bye,) = {header(message, "CSeq") for message in agent.received if message.startswith("BYE ")}
    assert first < int(bye.split()[0]) < 2**31


def test_a_call_that_rings_is_refused_to_its_caller_and_canceled_at_the_other_side(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_rings_until_canceled", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        hang_up(edge, until("it rings", lambda: is_at(edge, number, "ringing")))
        carrier.wait()
        agent.wait()
    assert carrier.final_code() == 603
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "api", 603)
    until("the edge is done with it", lambda: _is_quiet(edge))


def test_the_agent_that_was_killed_hangs_up_when_it_is_back(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        call = until("it is answered", lambda: is_at(edge, number, "answered"))
        edge.kill_part("agent")
        hang_up(edge, call)
        edge.start_part("agent")
        carrier.wait()
        agent.wait()
    ended = edge.ended_call(carrier.sip_call_id).ended
    assert ended is not None
    assert (ended.cause, ended.by) == ("hangup", "api")
    until("the edge is up again", edge.is_up, 60)


def test_a_call_that_nobody_has_is_no_error(edge: RunningEdge) -> None:
    command = HangUp(id="hang_up call_none", call_id="call_none")
    edge.control_plane.order(command)
    until("it was taken", lambda: "call_none" in edge.log("agent"))
    assert edge.is_up()


def _is_quiet(edge: RunningEdge) -> bool:
    return edge.control_plane.status is not None and edge.control_plane.status.open_calls == 0
