"""INVITEs that Kamailio refuses by itself: each leaves its explanation, with whoever it concerns."""

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from mutations import request
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until

STRANGER = "127.0.0.9"
_unique = itertools.count()


class Fault(NamedTuple):
    """What is put in place of what, and what comes of it."""

    right: bytes
    wrong: bytes
    code: int | None
    """Of the answer; None is none."""
    cause: str
    words: str
    """Of the explanation."""


FAULTS = {
    "no hop is left": Fault(b"Max-Forwards: 70", b"Max-Forwards: 0", 483, "too_many_hops", "Max-Forwards is 0"),
    "hops that are no number": Fault(
        b"Max-Forwards: 70", b"Max-Forwards: x", 483, "malformed", "Max-Forwards is 'x', and must be a number"
    ),
    "too large": Fault(
        b"Content-Type",
        b"Subject: " + b"x" * 17000 + b"\r\nContent-Type",
        513,
        "message_too_large",
        "bytes, at most 16,384 are taken",
    ),
    "another scheme": Fault(b"INVITE sip:", b"INVITE soap.beep:", 416, "scheme_not_supported", "is no SIP address"),
    "a bad request URI": Fault(b"@edge.example SIP", b"@edge.example:x SIP", 400, "malformed", "request URI 'sip:"),
    "no From": Fault(b"\r\nFrom: ", b"\r\nX-From: ", None, "malformed", "No INVITE may be without From, and this one"),
    "no To": Fault(b"\r\nTo: ", b"\r\nX-To: ", None, "malformed", "without To, and this one is. It got no answer."),
    "no Call-ID": Fault(b"\r\nCall-ID: ", b"\r\nX-Call: ", None, "malformed", "without Call-ID, and this one is."),
    "no CSeq": Fault(b"\r\nCSeq: ", b"\r\nX-CSeq: ", None, "malformed", "without CSeq, and this one is."),
    "a CSeq of another method": Fault(b"CSeq: 1 INVITE", b"CSeq: 1 BYE", 400, "malformed", "CSeq is '1 BYE'"),
    "a CSeq too high": Fault(b"CSeq: 1 ", b"CSeq: 99999999999 ", 400, "malformed", "CSeq is '99999999999 INVITE'"),
    "a body too short": Fault(b"Content-Length: ", b"Content-Length: 9", 400, "malformed", "Content-Length is '9"),
    "a bad Expires": Fault(b"Content-Type", b"Expires: soon\r\nContent-Type", 400, "malformed", "Expires is 'soon'"),
    "an unknown extension": Fault(
        b"Content-Type",
        b"Proxy-Require: x-fly\r\nContent-Type",
        420,
        "extension_not_supported",
        "Proxy-Require wants 'x-fly'",
    ),
    "a bad From": Fault(b"<sip:+13038921234@", b"<sip:+13038921234@:::", 400, "malformed", "From or in To can't be"),
    "a bad Via": Fault(b"SIP/2.0/UDP ", b"SIP/2.0/UDP ;;", None, "malformed", "topmost Via, can't be read"),
    "a tag in To": Fault(b"@edge.example>\r\n", b"@edge.example>;tag=1\r\n", 481, "no_such_call", "To has a tag"),
}


def invite(number: str, address: tuple[str, int], fault: Fault) -> bytes:
    message = request("INVITE", number, address, unique=f"broken{next(_unique)}")
    assert fault.right in message
    return message.replace(fault.right, fault.wrong, 1)


@contextlib.contextmanager
def at(host: str) -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        yield sock


def answer(sock: socket.socket, seconds: float) -> bytes:
    """Return what comes back, or nothing."""
    sock.settimeout(seconds)
    with contextlib.suppress(TimeoutError):
        return sock.recv(65535)
    return b""


def calls_from(edge: RunningEdge, sock: socket.socket) -> list[Call]:
    source = "{}:{}".format(*sock.getsockname())
    return [call for call in edge.calls() if call.invited.source == source and call.ended]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_carrier_finds_what_was_wrong_among_its_calls(
    edge: RunningEdge, number: str, agent_port: int, fault: Fault
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    with at(CARRIER) as sock:
        message = invite(number, sock.getsockname(), fault)
        sock.sendto(message, (edge.address, edge.sip_port))
        if fault.code:
            got = answer(sock, 60)
            assert got.startswith(b"SIP/2.0 %d " % fault.code), got
        else:
            sock.sendto(message, (edge.address, edge.sip_port))  # as what is not answered is repeated
        (call,) = until("the call is told of", lambda: calls_from(edge, sock))
    assert call.invited.refusal == fault.cause
    explanation = call.invited.explanation
    assert fault.words in explanation.summary
    assert explanation.mend
    assert f"source {CARRIER}: allowed on trunk The trunk" in explanation.tried
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("refused", "edge")
    assert call.invited.trunk_id == trunk.id
    if fault.cause != "scheme_not_supported":
        assert (call.invited.to, call.invited.number_id) == (number, f"phone_{number[1:]}")


def test_what_strangers_send_is_summed_and_gets_no_longer_answer(
    edge: RunningEdge, number: str, agent_port: int
) -> None:
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    with at(STRANGER) as sock:
        for fault in FAULTS.values():
            message = invite(number, sock.getsockname(), fault)
            for request_ in (message, b"\r\n\r\n".join([message.partition(b"\r\n\r\n")[0], b""])):
                sock.sendto(request_, (edge.address, edge.sip_port))
                assert len(answer(sock, 0.3)) <= len(request_)
        wanted = {fault.cause for fault in FAULTS.values()}
        told = until(
            "all of it is summed",
            lambda: (
                {one.cause: one for one in edge.control_plane.refused if one.source == STRANGER}
                if wanted <= {one.cause for one in edge.control_plane.refused if one.source == STRANGER}
                else None
            ),
        )
        assert not calls_from(edge, sock)
    assert told["too_many_hops"].called == number
    assert "Max-Forwards is 0" in told["too_many_hops"].why  # type: ignore[index]
    assert told["too_many_hops"].mend


def test_more_than_is_looked_at_in_a_second_is_said_once_a_second(edge: RunningEdge, number: str) -> None:
    host = "127.0.0.19"
    with at(host) as sock:
        began = time.monotonic()
        for _ in range(400):
            sock.sendto(
                request("INVITE", number, sock.getsockname(), unique=f"fast{next(_unique)}"),
                (edge.address, edge.sip_port),
            )
        seconds = time.monotonic() - began
    fast = until(
        "it is told of",
        lambda: [one for one in edge.control_plane.refused if (one.source, one.cause) == (host, "calls_too_fast")],
    )
    assert sum(one.count for one in fast) <= seconds + 2
    assert "than is looked at in a second" in fast[0].why


def test_a_scanner_is_named_unless_a_trunk_allows_its_address(edge: RunningEdge, number: str, agent_port: int) -> None:
    trunk = trunk_to(agent_port, barred_reason="nobody is there in this test")
    edge.route([trunk], [number_on(trunk, number)])
    agent = "User-Agent: MySipClient 2\r\n"
    with at("127.0.0.29") as stranger, at(CARRIER) as carrier:
        for sock in (stranger, carrier):
            message = request("INVITE", number, sock.getsockname(), unique=f"ua{next(_unique)}", extra=agent)
            sock.sendto(message, (edge.address, edge.sip_port))
        assert answer(carrier, 60).startswith(b"SIP/2.0 480 ")
        assert answer(stranger, 0.3) == b""
    told = until(
        "it is told of", lambda: next((one for one in edge.control_plane.refused if one.source == "127.0.0.29"), None)
    )
    assert "User-Agent is 'MySipClient 2'" in told.why


def test_an_extension_that_only_the_server_does_not_know_is_named(
    edge: RunningEdge, number: str, agent_port: int
) -> None:
    """Require is between the two ends (RFC 3261 section 20.32): it is passed on, and so is the answer to it."""
    unique = f"require{agent_port}"
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = edge.address, edge.sip_port
    with at(CARRIER) as carrier, socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((AGENT, agent_port))
        extra = "Require: 100rel\r\n"
        carrier.sendto(request("INVITE", number, carrier.getsockname(), unique=unique, extra=extra), to)
        invite_ = answer(server, 60).decode()
        assert extra in invite_
        echoed = [
            line for line in invite_.split("\r\n") if line.partition(":")[0] in ("Via", "From", "Call-ID", "CSeq")
        ]
        called = next(line for line in invite_.split("\r\n") if line.startswith("To:"))
        lines = [
            "SIP/2.0 420 Bad Extension",
            *echoed,
            f"{called};tag=1",
            "Unsupported: 100rel",
            "Content-Length: 0",
            "",
            "",
        ]
        server.sendto("\r\n".join(lines).encode(), to)
        call = edge.ended_call(f"{unique}@{CARRIER}")
    assert call.ended is not None
    assert (call.ended.sip_code, call.ended.detail) == (420, "Unsupported: 100rel")
