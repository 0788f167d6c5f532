"""Requests within a call in whose middle the agent is: what RFC 3261, 3262, 3311 and 4028 want of a user agent."""

import itertools
import socket
from pathlib import Path

from routes_of_tests import AGENT, CARRIER
from running_edge import RunningEdge, until
from sipp_tool import SCENARIOS, header, sipp
from test_after_death import is_connected, kept
from test_announced_calls_out import routes as announced_out
from test_announcements import SHORT, sound_of
from test_announcements import routes as announced
from test_calls_out import provider_calls
from test_placed_calls import ended, order, routes
from test_restarts import answer, header_of, heard, udp

from tests.ports import free_port

SDP = "v=0\r\no=- 1 {0} IN IP4 {1}\r\ns=-\r\nc=IN IP4 {1}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
TIMER = ("Supported: timer", "Session-Expires: 1800")


class Callee:
    """The callee of a call, by its socket, once it has answered."""

    def __init__(self, sock: socket.socket, edge: RunningEdge) -> None:
        self._sock, self._edge = sock, (edge.address, edge.sip_port)
        self._invite = heard(sock, "INVITE")
        answer(sock, self._invite, "200 OK", self._edge, "callee")
        heard(sock, "ACK")
        self._branches = itertools.count(1)

    def ask(self, method: str, cseq: int, *headers: str, body: str = "") -> str:
        """Send a request within the call; return its final answer."""
        self.say(method, cseq, *headers, body=body)
        while True:
            said = heard(self._sock, "SIP/2.0")
            if not said.startswith("SIP/2.0 1") and header_of(said, "CSeq") == f"{cseq} {method}":
                return said

    def say(self, method: str, cseq: int, *headers: str, body: str = "") -> None:
        lines = self._invite.partition("\r\n\r\n")[0].split("\r\n")
        there = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        routes = [f"Route: {line.partition(':')[2].strip()}" for line in lines if line.startswith("Record-Route:")]
        host, port = self._sock.getsockname()
        head = [
            f"{method} {there['contact'].strip('<>')} SIP/2.0",
            f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKw{port}x{next(self._branches)}",
            *routes,
            f"From: {there['to']};tag=callee",
            f"To: {there['from']}",
            f"Call-ID: {there['call-id']}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:callee@{host}:{port}>",
            "Max-Forwards: 70",
            *headers,
            *(["Content-Type: application/sdp"] if body else []),
            f"Content-Length: {len(body)}",
        ]
        self._sock.sendto("\r\n".join([*head, "", body]).encode(), self._edge)


def codes(*answers: str) -> list[str]:
    return [said.split()[1] for said in answers]


def test_a_side_is_answered_as_a_user_agent_has_to(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    callee_port = free_port()
    held = routes(edge, number, callee_port, agent_port)
    with udp(AGENT, callee_port) as sock, sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent:
        wanted = order(edge, held)
        callee = Callee(sock, edge)
        until("both are connected", lambda: is_connected(edge, wanted.call_id))

        refreshed = callee.ask("UPDATE", 10, *TIMER, "Require: timer")
        offered = callee.ask("INVITE", 11, *TIMER, body=SDP.format(2, AGENT))
        callee.say("ACK", 11)
        assert codes(refreshed, offered) == ["200", "200"]
        for said in (refreshed, offered):
            assert header_of(said, "Session-Expires") == "1800;refresher=uac"
            assert header_of(said, "Require") == "timer"
            assert header_of(said, "Contact")
        until("when it expires is known", lambda: kept(edge, wanted.call_id)["expires"])

        unknown = callee.ask("UPDATE", 12, "Require: precondition")
        assert codes(unknown) == ["420"]
        assert header_of(unknown, "Unsupported") == "precondition"
        late, unheard_of, never_here = callee.ask("INFO", 5), callee.ask("FETCH", 13), callee.ask("PUBLISH", 14)
        assert codes(late, unheard_of, never_here) == ["500", "501", "405"]

        ours = callee.ask("INVITE", 15)
        assert "m=audio" in ours
        assert codes(callee.ask("UPDATE", 16, body=SDP.format(3, AGENT))) == ["491"]
        callee.say("ACK", 15, body=SDP.format(4, AGENT))
        cseqs, again = itertools.count(17), SDP.format(5, AGENT)
        until("its answer is taken", lambda: codes(callee.ask("UPDATE", next(cseqs), body=again)) == ["200"])

        assert codes(callee.ask("BYE", 10_000), callee.ask("BYE", 10_001)) == ["200", "481"]
        agent.wait()
    end = ended(edge, wanted.call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "caller")


def requiring(folder: Path, scenario: str, *headers: str) -> str:
    """Return a scenario whose INVITEs have these headers besides."""
    path = folder / f"{scenario}_requiring"
    mark, more = "      Content-Type: application/sdp\n", "".join(f"      {line}\n" for line in headers)
    path.with_suffix(".xml").write_text((SCENARIOS / f"{scenario}.xml").read_text().replace(mark, more + mark))
    return str(path)


def test_a_caller_that_requires_reliable_answers_and_a_timer_is_announced_its_recording(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """RFC 3262 section 3: only provisional answers must be reliable, and it gets none but 100."""
    announced(edge, number, SHORT, agent_port)
    sound_of(edge, SHORT)
    scenario, to = requiring(folder, "carrier_waits_for_bye", "Require: 100rel, timer", *TIMER), edge.address
    with (
        sipp("agent_answers_and_hangs_up", folder, address=AGENT, port=agent_port) as agent,
        sipp(scenario, folder, address=CARRIER, to=(to, edge.sip_port), number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()
    taken = next(m for m in carrier.received if m.startswith("SIP/2.0 200"))
    assert (header(taken, "Session-Expires"), header(taken, "Require")) == ("1800;refresher=uac", "timer")
    assert not any(m.startswith("SIP/2.0 18") for m in carrier.received)


def test_a_provider_that_requires_reliable_answers_hears_no_ringing_and_is_answered(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    agent = announced_out(edge, number, agent_port, SHORT)
    scenario = requiring(folder, "provider_calls_out", "Require: 100rel")
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as callee,
        provider_calls(edge, folder, number, agent, scenario, []) as provider,
    ):
        provider.wait()
        callee.wait()
    assert provider.final_code("2 INVITE") == 200
    assert not any(m.startswith("SIP/2.0 18") for m in provider.received)
