"""Evidence: all messages of all legs of a call, in order, without secrets, also of refused calls; and never at the
cost of a call."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import sipp
from voxpria_routing.events import Timed
from voxpria_routing.trace import Message, Trace


def first_lines(trace: Trace, leg: str) -> list[str]:
    return [("< " if m.is_received else "> ") + m.text.partition("\r\n")[0] for m in trace.messages if m.leg == leg]


def shapes(trace: Trace, leg: str) -> list[str]:
    """The messages of a leg, by direction and method or code."""
    return [
        f"{way} {words[1] if words[0].startswith('SIP/') else words[0]}"
        for way, *words in (line.split() for line in first_lines(trace, leg))
    ]


def final_trace(edge: RunningEdge, call_id: str, ends_with: str) -> Trace:
    def look() -> Trace | None:
        traces = edge.control_plane.traces.get(call_id, [])
        return next((t for t in traces if any(_is(m, ends_with) for m in t.messages)), None)

    return until(f"the trace of {call_id} with {ends_with}", look)


def _is(message: Message, word: str) -> bool:
    return word in message.text.partition("\r\n")[0]


def test_every_message_of_both_legs_is_there(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    trunk = trunk_to(agent_port, username="user", password="pass")
    edge.route([trunk], [number_on(trunk, number, first_message="My hovercraft is full of eels")])
    (folder / "credentials.csv").write_text("SEQUENTIAL\nuser;pass\n")
    extra = ("-inf", str(folder / "credentials.csv"))
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_challenges_and_answers", folder, address=AGENT, port=agent_port, extra=extra) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    call = edge.ended_call(carrier.sip_call_id)
    trace = final_trace(edge, call.id, "BYE")
    assert shapes(trace, "carrier") == ["< INVITE", "> 100", "> 180", "> 200", "< ACK", "< BYE", "> 200"]
    assert shapes(trace, "agent") == [
        *("> INVITE", "< 401", "> ACK", "> INVITE", "< 180", "< 200", "> ACK", "> BYE", "< 200"),
    ]
    assert {message.transport for message in trace.messages} == {"udp"}
    times = [message.at for message in trace.messages]
    assert times == sorted(times)
    assert trace.messages[0].source.startswith(f"{CARRIER}:")
    assert trace.messages[0].destination == f"{edge.address}:{edge.sip_port}"
    answered = [m.text for m in trace.messages if "\r\nAuthorization:" in m.text]
    assert len(answered) == 1
    assert 'username="user"' in answered[0]
    everything = "".join(message.text for message in trace.messages)
    assert "response=" not in everything
    assert "hovercraft" not in everything
    assert "m=audio" in everything
    timed = until("the timings", lambda: next((e for e in edge.calls(carrier.sip_call_id)[0].events if _t(e)), None))
    assert timed.edge_ms is not None
    assert timed.post_dial_delay_ms is not None
    assert 0 < timed.edge_ms <= timed.post_dial_delay_ms
    assert timed.agent_answer_ms is not None
    assert timed.carrier_ack_ms is not None


def _t(event: object) -> bool:
    return isinstance(event, Timed)


def test_a_refused_call_has_its_trace_too(edge: RunningEdge, number: str, folder: Path) -> None:
    trunk = trunk_to(5060)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_refused", folder, address="127.0.0.9", to=to, number=number) as stranger:
        stranger.wait()
    call = edge.ended_call(stranger.sip_call_id)
    trace = final_trace(edge, call.id, "403")
    assert [shape for shape in shapes(trace, "carrier") if shape != "> 100"][:2] == ["< INVITE", "> 403"]
    assert not shapes(trace, "agent")


@contextlib.contextmanager
def held(address: tuple[str, int]) -> Iterator[None]:
    """Take the address that the agent listens for messages on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(address)
        yield


def test_calls_go_on_when_nothing_can_be_traced(tmp_path: Path, number: str, agent_port: int) -> None:
    edge = RunningEdge(tmp_path / "edge")
    (tmp_path / "edge" / "edge").mkdir(parents=True)
    (tmp_path / "edge" / "edge" / "trace.sqlite").write_bytes(b"this is no database" * 1000)
    trunk = trunk_to(agent_port)
    try:
        with held(("127.0.0.4", edge.tls_port)):
            edge.start()
            edge.route([trunk], [number_on(trunk, number)])
            _call(edge, number, agent_port, tmp_path / "first")
        assert not edge.control_plane.traces
        until("calls are traced again", lambda: _traced(edge, number, agent_port, tmp_path), 60)
    finally:
        edge.stop()


def _traced(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> bool:
    """Whether any call has been traced; if none has, place one more."""
    if not edge.control_plane.traces:
        _call(edge, number, agent_port, folder / f"call{len(edge.calls())}")
    return bool(edge.control_plane.traces)


def _call(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> str:
    folder.mkdir()
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    return edge.ended_call(carrier.sip_call_id).id
