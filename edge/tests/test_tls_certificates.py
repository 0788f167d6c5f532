"""A trunk's server over TLS: it must prove its name, to an authority that we know; else no call, and the reason."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates_of_tests import Authority
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import Call, RunningEdge, until
from sipp_tool import Sipp, header, sipp
from tls_front import TlsFront, tls_front
from voxpria_routing.events import Attempted
from voxpria_routing.snapshot import Trunk

from tests.ports import free_port

NAME = "sip.one.test"
_SILENCE_SECONDS = 5


@contextlib.contextmanager
def tls_agent(folder: Path, context: ssl.SSLContext, calls: int = 1) -> Iterator[tuple[TlsFront, Sipp]]:
    """Run a trunk's server over TLS."""
    inside, outside = free_port(), free_port()
    contact = f"{AGENT}:{outside};transport=tls"
    with (
        sipp(
            "agent_answers", folder, address=AGENT, port=inside, transport="t1", contact=contact, calls=calls
        ) as agent,
        tls_front(context, AGENT, outside, (AGENT, inside)) as front,
    ):
        yield front, agent


def tls_trunk(front: TlsFront, server: str = NAME, **values: object) -> Trunk:
    hop = f"{AGENT}:{front.port}"
    return trunk_to(front.port, transport="tls", server=server, next_hop=hop, username="user", password="pw", **values)


def called(edge: RunningEdge, folder: Path, number: str) -> Call:
    folder.mkdir()
    to = (edge.address, edge.sip_port)
    with sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number) as carrier:
        carrier.wait()
    return edge.ended_call(carrier.sip_call_id)


def refused(edge: RunningEdge, folder: Path, number: str) -> Call:
    folder.mkdir()
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_refused", folder, address=CARRIER, to=to, number=number) as carrier:
        carrier.wait()
    assert carrier.final_code() == 503
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.cause == "unreachable"
    # not by the timer that Kamailio has for a server that says nothing
    assert (call.ended.at - call.invited.at).total_seconds() < _SILENCE_SECONDS
    return call


@pytest.mark.parametrize(("server", "names"), [(NAME, (NAME,)), (NAME, ("*.one.test",)), (AGENT, (AGENT,))])
def test_a_server_that_proves_its_name_gets_the_call(
    edge: RunningEdge, number: str, folder: Path, server: str, names: tuple[str, ...]
) -> None:
    with tls_agent(folder, edge.authority.server_context(folder, *names)) as (front, agent):
        trunk = tls_trunk(front, server)
        edge.route([trunk], [number_on(trunk, number)])
        call = called(edge, folder / "carrier", number)
        agent.wait()
    assert set(call.kinds[:4]) == {"invited", "ringing", "answered", "ended"}
    assert header(agent.received[0], "Via").startswith("SIP/2.0/TLS")
    assert front.names[0] == (server if server == NAME else None)
    assert front.connections == 1


def test_another_name_gets_nothing(edge: RunningEdge, number: str, folder: Path) -> None:
    with tls_agent(folder, edge.authority.server_context(folder, "sip.other.test")) as (front, agent):
        trunk = tls_trunk(front)
        edge.route([trunk], [number_on(trunk, number)])
        call = refused(edge, folder / "carrier", number)
    assert agent.messages == ""
    assert call.ended is not None
    assert call.ended.detail is not None
    assert f"not valid for '{NAME}'" in call.ended.detail


def _unknown_authority(_: Authority, folder: Path) -> ssl.SSLContext:
    return Authority().server_context(folder, NAME)


def _expired(authority: Authority, folder: Path) -> ssl.SSLContext:
    return authority.server_context(folder, NAME, days=-1)


def _old_tls(authority: Authority, folder: Path) -> ssl.SSLContext:
    context = authority.server_context(folder, NAME)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(
    ("server", "reason"),
    [(_unknown_authority, "certificate"), (_expired, "certificate has expired"), (_old_tls, "TLS 1.2")],
)
def test_a_server_that_proves_nothing_gets_nothing(
    edge: RunningEdge, number: str, folder: Path, server: Callable[[Authority, Path], ssl.SSLContext], reason: str
) -> None:
    with tls_agent(folder, server(edge.authority, folder)) as (front, agent):
        trunk = tls_trunk(front)
        edge.route([trunk], [number_on(trunk, number)])
        call = refused(edge, folder / "carrier", number)
    assert agent.messages == ""
    assert call.ended is not None
    assert call.ended.detail is not None
    assert reason in call.ended.detail


@contextlib.contextmanager
def plain_server(address: str) -> Iterator[int]:
    """Run a SIP server without TLS, which finds no SIP in what it hears and says so; give its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"SIP/2.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socketserver.ThreadingTCPServer((address, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join(10)


def test_a_plain_server_on_a_port_for_tls_is_found_out_and_the_next_trunk_tried(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    with (
        plain_server(AGENT) as port,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as answering,
    ):
        first = trunk_to(port, transport="tls", server=AGENT, failover_trunk_ids=("trunk_b",))
        edge.route([first, trunk_to(agent_port, id="trunk_b", name="The second")], [number_on(first, number)])
        call = called(edge, folder / "carrier", number)
        answering.wait()
    # the reason is looked for while the call goes on
    [tried] = until(
        "the try is told of",
        lambda: [e for c in edge.calls(call.invited.sip_call_id) for e in c.events if isinstance(e, Attempted)],
    )
    assert (tried.cause, tried.trunk_id) == ("unreachable", "trunk_a")
    assert "does not speak TLS" in str(tried.detail)
    assert (tried.at - call.invited.at).total_seconds() < _SILENCE_SECONDS


def test_an_open_connection_serves_only_the_names_in_its_certificate(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    context = edge.authority.server_context(folder, NAME, "sip.two.test")
    with tls_agent(folder, context, calls=3) as (front, agent):  # one more than come: its connection stays
        trunks = [tls_trunk(front, server, id=f"trunk_{server}") for server in (NAME, "sip.two.test", "sip.three.test")]
        numbers = [f"{number}{digit}" for digit in range(3)]
        edge.route(trunks, [number_on(trunk, n) for trunk, n in zip(trunks, numbers, strict=True)])
        called(edge, folder / "first", numbers[0])
        call = refused(edge, folder / "third", numbers[2])
        called(edge, folder / "second", numbers[1])
        assert front.connections == 1
    assert "sip.three.test" not in agent.messages
    assert call.ended is not None
    assert "not valid for 'sip.three.test'" in (call.ended.detail or "")
