"""Messages that are almost right, by the thousand; and every way to have us send to a place of one's own choice."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mutations import mutated, request
from routes_of_tests import CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from test_abuse import a_call_works, processes
from voxpria_edge.proxy.kamailio import Rpc

from tests.ports import free_port

STRANGER, ELSEWHERE = "127.0.0.9", "127.0.0.77"
_PER_SECOND = 150
_ROOM_BYTES = 64 * 1024
_unique = itertools.count()


def daemons(edge: RunningEdge) -> set[int]:
    """Return the processes that may not change: Kamailio's, rtpengine and the agent."""
    return {*processes(edge), edge.pid("rtpengine"), edge.pid("agent")}


def is_alive(edge: RunningEdge) -> bool:
    return all(psutil.pid_exists(pid) for pid in daemons(edge)) and edge.is_up()


def rpc(edge: RunningEdge, method: str) -> dict[str, Any]:
    return dict(asyncio.run(Rpc(edge.run_dir / "kamailio.sock").call(method)))


def is_idle(edge: RunningEdge) -> bool:
    return rpc(edge, "tm.stats")["current"] == 0


def send_all(edge: RunningEdge, sender: str, seed: int, count: int, number: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((sender, 0))
        sock.setblocking(False)
        for data in mutated(seed, count, number, sock.getsockname()):
            sock.sendto(data, (edge.address, edge.sip_port))
            with contextlib.suppress(BlockingIOError):
                sock.recv(65535)
            time.sleep(1 / _PER_SECOND)


@pytest.mark.parametrize("sender", [CARRIER, STRANGER])
def test_fuzzed_messages_break_nothing_and_leave_nothing(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, sender: str
) -> None:
    """Nobody is at the trunk's server, so that what gets past all checks ends as well."""
    a_call_works(edge, folder / "before", number, agent_port)
    before = daemons(edge)
    send_all(edge, sender, 1, 300, number)  # what is made once and kept is made here
    until("the warm-up is over", lambda: is_idle(edge), 90)
    used = rpc(edge, "core.shmmem")["real_used"]
    send_all(edge, sender, 2, 1200, number)
    until("no transaction is left", lambda: is_idle(edge), 90)
    assert daemons(edge) == before
    assert is_alive(edge)
    until("its memory is given back", lambda: rpc(edge, "core.shmmem")["real_used"] < used + _ROOM_BYTES, 60)
    until("every call that was opened has ended", lambda: all(call.ended for call in edge.calls()), 60)
    a_call_works(edge, folder / "after", number, free_port())  # the one where nobody was is looked at again later


@contextlib.contextmanager
def sink() -> Iterator[socket.socket]:
    """Listen where nothing may ever arrive."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((ELSEWHERE, 0))
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize("sender", [CARRIER, STRANGER])
def test_nobody_can_have_us_send_to_a_place_of_their_choice(
    edge: RunningEdge, number: str, agent_port: int, sender: str
) -> None:
    """By request URI, Route, maddr, received, Record-Route or Refer-To; in a dialog that never was, or in none."""
    trunk = trunk_to(agent_port)  # where nobody is
    edge.route([trunk], [number_on(trunk, number)])
    with sink() as elsewhere, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((sender, 0))
        sock.settimeout(2)
        there = "{}:{}".format(*elsewhere.getsockname())
        for method in ("INVITE", "ACK", "BYE", "CANCEL", "REFER", "MESSAGE", "SUBSCRIBE", "NOTIFY", "UPDATE", "INFO"):
            for data in _elsewhere(method, number, sock.getsockname(), there):
                sock.sendto(data, (edge.address, edge.sip_port))
                time.sleep(1 / _PER_SECOND)
        # what is asked last is answered last: by then all the others are done with
        sock.sendto(
            request("OPTIONS", number, sock.getsockname(), unique=f"last{next(_unique)}"), (edge.address, edge.sip_port)
        )
        until("the last is answered", lambda: b"OPTIONS" in sock.recv(65535))
        until("no transaction is left", lambda: is_idle(edge), 90)
        with pytest.raises(BlockingIOError):
            elsewhere.recv(65535)


def _elsewhere(method: str, number: str, address: tuple[str, int], there: str) -> Iterator[bytes]:
    def plain(extra: str = "") -> bytes:
        return request(method, number, address, unique=f"relay{next(_unique)}", extra=extra)

    routes = (
        f"Route: <sip:{there};lr>\r\n",
        f"Route: <sip:edge.example;lr>, <sip:{there};lr>\r\n",
        f"Route: <sip:{there}>\r\n",
    )
    for extra in (
        *routes,
        f"Record-Route: <sip:{there};lr>\r\n",
        f"Refer-To: <sip:{there}>\r\n",
        f"Path: <sip:{there};lr>\r\n",
    ):
        for data in (plain(extra), plain(extra).replace(b"@edge.example>\r\n", b"@edge.example>;tag=made-up\r\n")):
            yield data
            yield data.replace(b"@edge.example SIP", f"@{there} SIP".encode())
    yield plain().replace(b"@edge.example SIP", f"@edge.example;maddr={there} SIP".encode())
    yield plain().replace(b"SIP/2.0/UDP ", f"SIP/2.0/UDP {there};received={ELSEWHERE};x=".encode(), 1)


def test_an_answer_goes_to_where_its_question_came_from(edge: RunningEdge, number: str) -> None:
    """RFC 3261 section 18.2.2, RFC 3581: whoever Via names, the answer goes to the source."""
    with sink() as elsewhere, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((CARRIER, 0))
        sock.settimeout(5)
        named = elsewhere.getsockname()
        sock.sendto(request("INVITE", number, named, unique=f"via{next(_unique)}"), (edge.address, edge.sip_port))
        assert sock.recv(65535).startswith(b"SIP/2.0 404")
        with pytest.raises(BlockingIOError):
            elsewhere.recv(65535)
