"""A caller that gives up while its call moves on from a trunk's server that failed, and a CANCEL of no call."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import header, sipp
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port

_calls = itertools.count()


class Caller:
    """A carrier by hand: its next message waits for what the test has seen elsewhere."""

    def __init__(self, edge: RunningEdge, number: str, socket_: socket.socket) -> None:
        self._to, self._socket = (edge.address, edge.sip_port), socket_
        self._host, self._port = socket_.getsockname()
        self._number, self._branch = number, f"z9hG4bKgivesup{self._port}"
        self.sip_call_id = f"gives-up-{self._port}-{next(_calls)}"
        self.heard: list[str] = []

    @classmethod
    @contextlib.contextmanager
    def at(cls, edge: RunningEdge, number: str, address: str = CARRIER) -> Iterator["Caller"]:
        with socket.socket(type=socket.SOCK_DGRAM) as socket_:
            socket_.bind((address, 0))
            socket_.settimeout(0.05)
            yield cls(edge, number, socket_)

    def send(self, method: str, to_tag: str = "") -> None:
        """Send a request of the one INVITE transaction: INVITE, CANCEL, or the ACK of its refusal."""
        self._socket.sendto(
            (
                f"{method} sip:{self._number}@{self._to[0]}:{self._to[1]} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {self._host}:{self._port};branch={self._branch}\r\n"
                f"From: <sip:+13038921234@{self._host}>;tag=1\r\nTo: <sip:{self._number}@{self._to[0]}>{to_tag}\r\n"
                f"Call-ID: {self.sip_call_id}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\n"
                f"Contact: <sip:{self._host}:{self._port}>\r\nContent-Length: 0\r\n\r\n"
            ).encode(),
            self._to,
        )

    def code(self, method: str, at_least: int = 200) -> int | None:
        """Return the first code from `at_least` on that has come for a method; None as long as none has."""
        with contextlib.suppress(TimeoutError):
            self.heard.append(self._socket.recv(65535).decode().replace("\r\n", "\n"))
        codes = [int(m.split()[1]) for m in self.heard if header(m, "CSeq").endswith(f" {method}")]
        return next((code for code in codes if code >= at_least), None)


@pytest.fixture
def two_trunks(edge: RunningEdge, number: str, agent_port: int) -> tuple[Trunk, Trunk]:
    """A trunk and the one that stands in for it; the number's calls go to them."""
    first = trunk_to(agent_port, failover_trunk_ids=("trunk_b",))
    second = trunk_to(free_port(), id="trunk_b", name="The second")
    edge.route([first, second], [number_on(first, number)])
    return first, second


def test_before_the_server_has_said_anything(
    edge: RunningEdge, number: str, folder: Path, two_trunks: tuple[Trunk, Trunk]
) -> None:
    """RFC 3261 section 9.1: nothing can be canceled there yet; the next server is not tried for a caller that left."""
    first, second = two_trunks
    with (
        socket.socket(type=socket.SOCK_DGRAM) as silent,
        sipp("agent_answers", folder, address=AGENT, port=second.port) as idle,
        Caller.at(edge, number) as caller,
    ):
        silent.bind((AGENT, first.port))
        caller.send("INVITE")
        assert silent.recv(65535).startswith(b"INVITE ")
        caller.send("CANCEL")
        until("the INVITE is refused", lambda: caller.code("INVITE"))
        caller.send("ACK", ";tag=x")
        assert (caller.code("CANCEL"), caller.code("INVITE")) == (200, 487)
        call = edge.ended_call(caller.sip_call_id)
        assert not idle.received
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "caller", 487)


def test_while_the_next_server_is_being_chosen(
    edge: RunningEdge, number: str, folder: Path, two_trunks: tuple[Trunk, Trunk]
) -> None:
    """The agent is held back, so that the CANCEL comes after one server's refusal, before the next is known."""
    first, second = two_trunks
    with (
        sipp("agent_rings_then_fails", folder, address=AGENT, port=first.port, extra=("-d", "2000")) as failing,
        sipp("agent_answers", folder, address=AGENT, port=second.port) as idle,
        Caller.at(edge, number) as caller,
    ):
        caller.send("INVITE")
        until("it rings", lambda: caller.code("INVITE", 180))
        with edge.paused("agent"):
            failing.wait()
            caller.send("CANCEL")
            until("the CANCEL is answered", lambda: caller.code("CANCEL"))
        until("the INVITE is refused", lambda: caller.code("INVITE"))
        caller.send("ACK", ";tag=x")
        assert (caller.code("CANCEL"), caller.code("INVITE")) == (200, 487)
        call = edge.ended_call(caller.sip_call_id)
        assert not idle.received
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "caller", 487)


def test_while_the_next_server_rings(
    edge: RunningEdge, number: str, folder: Path, two_trunks: tuple[Trunk, Trunk]
) -> None:
    first, second = two_trunks
    (folder / "second").mkdir()
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_refuses", folder, address=AGENT, port=first.port) as refusing,
        sipp("agent_rings_until_canceled", folder / "second", address=AGENT, port=second.port) as ringing,
        sipp("carrier_cancels_while_it_rings", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        refusing.wait()
        ringing.wait()
    assert not [m for m in refusing.received if m.startswith("CANCEL")]
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("canceled", "caller", 487)


@pytest.mark.parametrize("method", ["CANCEL", "BYE"])
def test_what_ends_no_call_is_told_so(edge: RunningEdge, number: str, method: str) -> None:
    """RFC 3261 sections 9.2 and 15.1.2; a stranger may hear nothing, if the answer were longer than what it sent."""
    trunk = trunk_to(5060)
    edge.route([trunk], [number_on(trunk, number)])
    with Caller.at(edge, number) as caller:

        def answered() -> int | None:
            caller.send(method)
            return caller.code(method)

        assert until("an answer, once the carrier is known", answered) == 481
