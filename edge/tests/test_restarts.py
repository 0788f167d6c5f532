"""A part of the edge dies while a call is being set up: it goes on where it can, and its record tells the truth."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from challenger import PASSWORD, USER, challenger
from mutations import request
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import header, sipp
from test_announcements import SHORT, sound_of
from test_announcements import routes as announced
from test_fuzz import rpc
from voxpria_routing.edge_api import HangUp

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def own_edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    with RunningEdge.started(tmp_path_factory.mktemp("restarts")) as running:
        yield running


def restart(edge: RunningEdge, part: str) -> None:
    """Kill a part with -9 and start it again."""
    edge.kill_part(part)
    edge.control_plane.status = None  # what was said before counts no more
    edge.start_part(part)
    until("the edge is up again", edge.is_up, 90)


@pytest.mark.parametrize(
    ("credentials", "detail"),
    [
        ({"username": USER, "password": PASSWORD}, None),
        ({}, "the trunk has none: set its credentials"),
        ({"username": USER, "password": "wrong"}, "refused the trunk's username and password"),
    ],
    ids=["right", "none", "wrong"],
)
def test_an_agent_that_died_since_it_dialled_answers_the_challenge_all_the_same(
    own_edge: RunningEdge,
    number: str,
    agent_port: int,
    folder: Path,
    credentials: dict[str, str],
    detail: str | None,
) -> None:
    edge = own_edge
    trunk = trunk_to(agent_port, **credentials)
    edge.route([trunk], [number_on(trunk, number)])
    scenario = "carrier_is_refused" if detail else "carrier_calls_and_hangs_up"
    with challenger(AGENT, agent_port, ["MD5"]) as server:
        server.may_answer.clear()
        to = (edge.address, edge.sip_port)
        with sipp(scenario, folder, address=CARRIER, to=to, number=number) as carrier:
            until("the server is dialled", lambda: server.of("INVITE"))
            restart(edge, "agent")
            server.may_answer.set()
            carrier.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    if detail is None:
        assert (call.ended.cause, call.ended.sip_code) == ("hangup", 200)
    else:
        assert call.ended.cause == "rejected"
        assert detail in str(call.ended.detail)


@contextlib.contextmanager
def udp(host: str, port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        yield sock


def heard(sock: socket.socket, begins: str) -> str:
    """Return the next message that begins so; fail if none comes, telling what did."""
    sock.settimeout(90)
    others = []
    try:
        while not (message := sock.recv(65535).decode()).startswith(begins):
            others.append(message)
    except TimeoutError:
        pytest.fail(f"no {begins} came, but {others}")
    return message


@contextlib.contextmanager
def dialled(
    edge: RunningEdge, number: str, port: int, unique: str, **trunk: object
) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """Have a carrier call; give its socket, that of the trunk's server, and the INVITE as it came there."""
    to_server = trunk_to(port, **trunk)
    edge.route([to_server], [number_on(to_server, number)])
    with udp(CARRIER) as carrier, udp(AGENT, port) as server:
        invite = request("INVITE", number, carrier.getsockname(), unique=unique)
        carrier.sendto(invite, (edge.address, edge.sip_port))
        yield carrier, server, heard(server, "INVITE")


def hears_nothing_of(sock: socket.socket, what: str) -> bool:
    """Tell whether nothing that has come so far begins so."""
    sock.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            if sock.recv(65535).decode().startswith(what):
                return False
    return True


def answer(sock: socket.socket, request_: str, status: str, to: tuple[str, int], tag: str = "late") -> None:
    """Answer a request as a server does, with a session description if it took a call."""
    host, port = sock.getsockname()
    lines = request_.partition("\r\n\r\n")[0].split("\r\n")
    echoed = [line for line in lines if line.partition(":")[0] in ("Via", "From", "Call-ID", "CSeq", "Record-Route")]
    called = next(line for line in lines if line.startswith("To:"))
    called += "" if ";tag=" in called else f";tag={tag}"
    body = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
    head = [f"SIP/2.0 {status}", *echoed, called, f"Contact: <sip:agent@{host}:{port}>"]
    head += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
    sock.sendto("\r\n".join([*head, "", body]).encode(), to)


def acknowledge(sock: socket.socket, taken: str, to: tuple[str, int]) -> None:
    """Send the ACK of a 200 to an INVITE."""
    host, port = sock.getsockname()
    lines = taken.partition("\r\n\r\n")[0].split("\r\n")
    routes = [line.partition(":")[2].strip() for line in lines if line.startswith("Record-Route:")]
    head = [
        f"ACK {header_of(taken, 'Contact').strip('<>')} SIP/2.0",
        f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKack{port}",
        *(f"Route: {route}" for route in reversed(routes)),
        *(f"{name}: {header_of(taken, name)}" for name in ("From", "To", "Call-ID")),
        f"CSeq: {header_of(taken, 'CSeq').split()[0]} ACK",
        *("Max-Forwards: 70", "Content-Length: 0", "", ""),
    ]
    sock.sendto("\r\n".join(head).encode(), to)


def test_an_answer_that_comes_after_kamailio_died_reaches_no_caller_and_is_ended(
    own_edge: RunningEdge, number: str, agent_port: int
) -> None:
    edge, unique, to = own_edge, f"late{agent_port}", (own_edge.address, own_edge.sip_port)
    with dialled(edge, number, agent_port, unique) as (carrier, server, invite):
        restart(edge, "kamailio")
        answer(server, invite, "200 OK", to)
        assert header_of(heard(server, "ACK"), "To").endswith(";tag=late")
        answer(server, heard(server, "BYE"), "200 OK", to)
        assert hears_nothing_of(carrier, "SIP/2.0 200")
    call = edge.ended_call(f"{unique}@{CARRIER}")
    assert call.ended is not None
    assert call.ended.cause == "lost"


def test_an_answer_that_is_repeated_when_all_have_forgotten_it_is_acknowledged_and_goes_no_further(
    own_edge: RunningEdge, number: str, agent_port: int
) -> None:
    edge, unique, to = own_edge, f"repeated{agent_port}", (own_edge.address, own_edge.sip_port)
    with dialled(edge, number, agent_port, unique) as (carrier, server, invite):
        answer(server, invite, "200 OK", to)
        assert AGENT not in heard(carrier, "SIP/2.0 200")
        until("its transaction is gone", lambda: rpc(edge, "tm.stats")["current"] == 0, 90)
        answer(server, invite, "200 OK", to)
        heard(server, "ACK")
        assert hears_nothing_of(carrier, "SIP/2.0 200")
        assert hears_nothing_of(server, "BYE")
        (call,) = edge.calls(f"{unique}@{CARRIER}")
        assert call.ended is None


def test_an_answer_that_somebody_made_up_is_not_reacted_to(own_edge: RunningEdge) -> None:
    """Nor is it passed on to whoever its Via names: the edge is no mirror."""
    edge, made_up = own_edge, "call_01m8npj07qfy5ajcs2nb4m7c58"
    with udp(CARRIER) as victim, udp("127.0.0.9") as sender:
        there = "{}:{}".format(*victim.getsockname())
        stray = (
            f"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {edge.address}:{edge.sip_port};branch=z9hG4bKx.1\r\n"
            f"Via: SIP/2.0/UDP {there};branch=z9hG4bKy\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\n"
            f"Call-ID: made-up\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.9>\r\n"
            f"Record-Route: <sip:{edge.address};lr;call={made_up}>\r\nContent-Length: 0\r\n\r\n"
        )
        sender.sendto(stray.encode(), (edge.address, edge.sip_port))
        options = request("OPTIONS", "+15550000000", sender.getsockname(), unique="after-it")
        sender.sendto(options, (edge.address, edge.sip_port))
        heard(sender, "SIP/2.0 200")  # what came before it is done with
        assert hears_nothing_of(sender, "")
        assert hears_nothing_of(victim, "")


@pytest.mark.parametrize("parts", [["kamailio"], ["kamailio", "agent"]], ids=" and ".join)
def test_an_invite_that_is_repeated_since_kamailio_died_is_the_same_call(
    own_edge: RunningEdge, number: str, agent_port: int, parts: list[str]
) -> None:
    edge, unique, to = own_edge, f"again{agent_port}", (own_edge.address, own_edge.sip_port)
    only = {"id": f"trunk_{number[1:]}", "max_concurrent_calls": 1}
    with dialled(edge, number, agent_port, unique, **only) as (carrier, server, _):
        for part in parts:
            restart(edge, part)
        assert hears_nothing_of(server, "CANCEL")
        carrier.sendto(request("INVITE", number, carrier.getsockname(), unique=unique), to)
        answer(server, heard(server, "INVITE"), "486 Busy Here", to)
        heard(carrier, "SIP/2.0 486")
    call = edge.ended_call(f"{unique}@{CARRIER}")
    assert call.kinds.count("invited") == 1
    assert call.ended is not None
    assert (call.ended.cause, call.ended.sip_code) == ("rejected", 486)
    assert call.invited.refusal is None


def test_an_invite_that_is_repeated_before_its_caller_was_told_of_the_recording_is_the_same_call(
    own_edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    """The agent was about to answer when Kamailio died."""
    edge, unique = own_edge, f"told{agent_port}"
    announced(edge, number, SHORT, agent_port)
    sound_of(edge, SHORT)
    to = edge.address, edge.sip_port
    with udp(CARRIER) as carrier, sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent:
        invite = request("INVITE", number, carrier.getsockname(), unique=unique)
        with edge.paused("rtpengine"):
            carrier.sendto(invite, to)
            until("it is told of", lambda: edge.calls(f"{unique}@{CARRIER}"))
            edge.kill_part("kamailio")
        assert hears_nothing_of(carrier, "SIP/2.0 200")
        edge.control_plane.status = None
        edge.start_part("kamailio")
        until("the edge is up again", edge.is_up, 90)
        carrier.sendto(invite, to)
        acknowledge(carrier, heard(carrier, "SIP/2.0 200"), to)
        until("the agent has its ACK", lambda: any(message.startswith("ACK") for message in agent.received))
        [call] = edge.calls(f"{unique}@{CARRIER}")
        edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))
        answer(carrier, heard(carrier, "BYE"), "200 OK", to)
        agent.wait()
    call = edge.ended_call(f"{unique}@{CARRIER}")
    assert [call.kinds.count(kind) for kind in ("invited", "answered", "ended")] == [1, 1, 1]
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "api")


def test_an_invite_that_was_refused_before_kamailio_died_is_refused_once(own_edge: RunningEdge, number: str) -> None:
    edge, unique = own_edge, f"refused{number[1:]}"
    trunk = trunk_to(5060)
    edge.route([trunk], [number_on(trunk, number)])
    to = edge.address, edge.sip_port
    with udp(CARRIER) as carrier:
        invite = request("INVITE", "+15550009999", carrier.getsockname(), unique=unique)
        for _ in range(2):
            carrier.sendto(invite, to)
            heard(carrier, "SIP/2.0 404")
            restart(edge, "kamailio")
        # what is refused next is told of after it
        carrier.sendto(request("INVITE", "+15550009999", carrier.getsockname(), unique=f"{unique}x"), to)
        edge.ended_call(f"{unique}x@{CARRIER}")
    edge.ended_call(f"{unique}@{CARRIER}")


def test_calls_that_came_while_the_agent_was_dead_are_in_the_record_when_it_is_back(
    own_edge: RunningEdge, number: str, agent_port: int
) -> None:
    """Also those that are refused whoever decides, and the one that Kamailio refuses by itself."""
    edge = own_edge
    trunk = trunk_to(agent_port)
    edge.route([trunk], [number_on(trunk, number)])
    to = edge.address, edge.sip_port
    edge.kill_part("agent")
    with udp(CARRIER) as carrier:
        for dialled in (number, "+15550009999"):
            unique = f"dead{dialled[1:]}x{agent_port}"
            carrier.sendto(request("INVITE", dialled, carrier.getsockname(), unique=unique), to)
            assert "\r\nRetry-After: " in heard(carrier, "SIP/2.0 503")
        hopless = request("INVITE", number, carrier.getsockname(), unique=f"hops{agent_port}")
        carrier.sendto(hopless.replace(b"Max-Forwards: 70", b"Max-Forwards: 0"), to)
        heard(carrier, "SIP/2.0 483")
    edge.control_plane.status = None
    edge.start_part("agent")
    until("the edge is up again", edge.is_up, 90)
    taken = edge.ended_call(f"dead{number[1:]}x{agent_port}@{CARRIER}")
    assert taken.ended is not None
    assert (taken.ended.cause, taken.ended.sip_code) == ("refused", 503)
    assert "agent did not answer in time" in str(taken.ended.detail)
    assert edge.ended_call(f"dead15550009999x{agent_port}@{CARRIER}").invited.refusal == "number_not_found"
    assert edge.ended_call(f"hops{agent_port}@{CARRIER}").invited.refusal == "too_many_hops"


def header_of(message: str, name: str) -> str:
    return header(message.replace("\r\n", "\n"), name)
