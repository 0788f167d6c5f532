"""Who is let in, how many at once, and what the others are told."""

import asyncio
import contextlib
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until
from sipp_tool import header, sipp
from test_admission_units import answer
from voxpria_edge.proxy.kamailio import Rpc
from voxpria_routing.snapshot import Limits

STRANGER = "127.0.0.9"


def digest_trunk(port: int, number: str) -> dict[str, object]:
    return {"id": f"trunk_{number[1:]}", "allowed_addresses": (), "username": "user", "password": "secret"}


def test_a_carrier_that_knows_the_password_is_let_in_from_anywhere(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    trunk = trunk_to(agent_port, **digest_trunk(agent_port, number))
    edge.route([trunk], [number_on(trunk, number)])
    extra = ("-au", "user", "-ap", "secret")
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_uses_digest", folder, address=STRANGER, to=to, number=number, extra=extra) as carrier,
    ):
        carrier.wait()
        agent.wait()
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert call.ended.sip_code == 200
    assert any("digest of user: right" in line for line in call.invited.explanation.tried)
    assert "Authorization:" not in agent.received[0]


def test_a_wrong_password_is_403_and_the_record_says_so(edge: RunningEdge, number: str, folder: Path) -> None:
    trunk = trunk_to(5060, **digest_trunk(5060, number))
    edge.route([trunk], [number_on(trunk, number)])
    extra = ("-au", "user", "-ap", "wrong")
    to = (edge.address, edge.sip_port)
    with sipp("carrier_uses_digest", folder, address=STRANGER, to=to, number=number, extra=extra) as carrier:
        carrier.wait()
    assert carrier.final_code("2 INVITE") == 403
    call = edge.ended_call(carrier.sip_call_id)
    assert call.invited.refusal == "credentials_refused"
    assert call.invited.explanation.nearest == "the username is right, the password is not"


def invite(number: str, source: tuple[str, int], extra: str = "", body: str = "v=0\r\n" + "a=x\r\n" * 60) -> bytes:
    host, port = source
    return (
        f"INVITE sip:{number}@edge SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{port}{len(extra)}\r\n"
        f"From: <sip:+13038921234@x>;tag=1\r\nTo: <sip:{number}@edge>\r\nCall-ID: raw-{port}\r\nCSeq: 1 INVITE\r\n"
        f"Contact: <sip:{host}:{port}>\r\nMax-Forwards: 70\r\n{extra}"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def exchange(edge: RunningEdge, sock: socket.socket, request: bytes, seconds: float = 3) -> list[str]:
    """Send a request, and return all that comes back in the time in which an answer would be repeated."""
    sock.sendto(request, (edge.address, edge.sip_port))
    sock.settimeout(seconds)
    answers = []
    try:
        while True:
            answers.append(sock.recv(65535).decode())
    except TimeoutError:
        return answers


def test_strangers_get_one_answer_whatever_they_dial_and_no_longer_than_their_question(
    edge: RunningEdge, number: str
) -> None:
    trunk = trunk_to(5060, **digest_trunk(5060, number))
    edge.route([trunk], [number_on(trunk, number)])
    seen = []
    for dialled in (number, "+15558889999", "sales"):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((STRANGER, 0))
            request = invite(dialled, sock.getsockname())
            [answer_] = exchange(edge, sock, request)
            assert len(answer_) <= len(request)
            seen.append(
                [
                    re.sub(r'".*?"|[0-9a-f.-]{8,}', "", line)
                    for line in answer_.splitlines()
                    if "WWW" in line or "SIP/2.0 " in line
                ]
            )
            assert "X-VoxPria" not in answer_
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0].startswith("SIP/2.0 401")


def test_a_question_too_short_for_an_answer_gets_none(edge: RunningEdge, number: str) -> None:
    trunk = trunk_to(5060, **digest_trunk(5060, number))
    edge.route([trunk], [number_on(trunk, number)])
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((STRANGER, 0))
        assert exchange(edge, sock, invite(number, sock.getsockname(), body="")) == []
    calls = until("the refusal is told of", lambda: [c for c in edge.calls() if c.invited.to == number and c.ended])
    assert "answered no digest challenge" in calls[0].invited.explanation.summary


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_a_digest_answer_is_taken_once(edge: RunningEdge, number: str, algorithm: str) -> None:
    trunk = trunk_to(5060, **digest_trunk(5060, number), barred_reason="nobody is there in this test")
    edge.route([trunk], [number_on(trunk, number)])
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((STRANGER, 0))
        [challenge] = exchange(edge, sock, invite(number, sock.getsockname()), 1)
        [line] = [line for line in challenge.splitlines() if line.startswith("WWW") and f"={algorithm}," in line]
        first = invite(number, sock.getsockname(), f"Authorization: {answer(line)}\r\n")
        assert exchange(edge, sock, first, 0.3)[0].startswith("SIP/2.0 480")
        replayed = first.replace(b"z9hG4bK", b"z9hG4bKreplayed")
        stale = [a for a in exchange(edge, sock, replayed, 1) if "replayed" in a]
        assert stale[0].startswith("SIP/2.0 401")
        assert "stale=true" in stale[0]


def test_a_trunk_takes_no_more_calls_than_it_may(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    trunk = trunk_to(agent_port, id=f"trunk_{number[1:]}", max_concurrent_calls=1)
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    (folder / "second").mkdir()
    extra = ("-d", "4000")
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder, address=CARRIER, to=to, number=number, extra=extra) as carrier,
    ):
        until("the first call is up", lambda: "SIP/2.0 200" in carrier.messages)
        with sipp("carrier_is_refused", folder / "second", address=CARRIER, to=to, number=number) as second:
            second.wait()
        carrier.wait()
        agent.wait()
    assert second.final_code() == 486
    assert header(second.received[-1], "Retry-After")
    assert edge.ended_call(second.sip_call_id).invited.refusal == "too_many_calls"
    (folder / "third").mkdir()
    with (
        sipp("agent_answers", folder / "third", address=AGENT, port=agent_port) as agent,
        sipp("carrier_calls_and_hangs_up", folder / "third", address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        agent.wait()


def test_a_trunk_takes_no_calls_faster_than_it_may(edge: RunningEdge, number: str, folder: Path) -> None:
    trunk = trunk_to(5060, id=f"trunk_{number[1:]}", max_calls_per_second=0.1, server="127.0.0.2")
    edge.route([trunk], [number_on(trunk, number)])
    to = (edge.address, edge.sip_port)
    codes = []
    for place in ("first", "second"):
        (folder / place).mkdir()
        with sipp("carrier_is_refused", folder / place, address=CARRIER, to=to, number=number) as carrier:
            carrier.wait()
        codes.append(edge.ended_call(carrier.sip_call_id).invited.refusal)
    assert codes == [None, "calls_too_fast"]
    assert carrier.final_code() == 503
    assert int(header(carrier.received[-1], "Retry-After")) >= 1


@pytest.mark.parametrize("whose", ["trunk", "account"])
@pytest.mark.parametrize("limit", ["calls", "rate"])
def test_calls_that_come_at_once_find_room_for_as_many_as_may(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, whose: str, limit: str
) -> None:
    """Twenty calls in a tenth of a second; each is either answered or refused with the limit as its reason."""
    room = 5
    limits = {"max_concurrent_calls": room} if limit == "calls" else {"max_calls_per_second": room / 60}
    let_in = room if limit == "calls" else 1  # a rate below one a second is one call in so many seconds
    trunk = trunk_to(agent_port, id=f"trunk_{number[1:]}", account_id=f"acc_{number[1:]}")
    if whose == "trunk":
        trunk = msgspec.structs.replace(trunk, **limits)
    edge.route([trunk], [number_on(trunk, number)], Limits(**limits) if whose == "account" else Limits())
    with (
        sipp("agent_answers", folder, address=AGENT, port=agent_port, calls=let_in) as agent,
        sipp(
            "carrier_takes_what_it_gets",
            folder,
            address=CARRIER,
            to=(edge.address, edge.sip_port),
            number=number,
            calls=20,
            extra=("-r", "200", "-d", "8000"),
        ) as carrier,
    ):
        carrier.wait()
        agent.wait()

    def told() -> list[str | None] | None:
        calls = [call for call in edge.calls() if call.invited.to == number and call.ended]
        return [call.invited.refusal for call in calls] if len(calls) == 20 else None

    refusal = "too_many_calls" if limit == "calls" else "calls_too_fast"
    assert Counter(until("every call is told of", told)) == {None: let_in, refusal: 20 - let_in}
    code = 486 if limit == "calls" else 503
    refused = [m for m in carrier.received if m.startswith(f"SIP/2.0 {code}")]
    assert len({header(message, "Call-ID") for message in refused}) == 20 - let_in
    assert all(header(message, "Retry-After") for message in refused)
    [sentence] = {
        call.invited.explanation.summary.lower()
        for call in edge.calls()
        if call.invited.to == number and call.invited.refusal
    }
    assert f"{whose} " in sentence


def test_scanners_are_not_answered(edge: RunningEdge, number: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind((STRANGER, 0))
        assert exchange(edge, sock, invite(number, sock.getsockname(), "User-Agent: friendly-scanner\r\n"), 1) == []


def test_a_flood_of_a_stranger_is_not_looked_at(edge: RunningEdge, number: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.66", 0))
        host, port = sock.getsockname()
        for i in range(300):
            request = (
                f"OPTIONS sip:edge SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bKf{i}\r\n"
                f"From: <sip:a@x>;tag=1\r\nTo: <sip:edge>\r\nCall-ID: flood-{i}\r\nCSeq: 1 OPTIONS\r\n"
                f"Contact: <sip:{host}:{port}>\r\nMax-Forwards: 70\r\n"
                f"User-Agent: {'x' * 200}\r\nContent-Length: 0\r\n\r\n"
            )
            sock.sendto(request.encode(), (edge.address, edge.sip_port))
        answers = exchange(edge, sock, b"", 2)
    assert 1 <= len(answers) <= 100


def test_an_allowed_carrier_is_looked_at_in_the_worst_flood(
    tmp_path_factory: pytest.TempPathFactory, number: str, agent_port: int, folder: Path
) -> None:
    """Its first calls come while strangers send more than is looked at; over TCP, so that what is not is answered."""
    limits = {"VOXPRIA_STRANGER_REQUESTS_PER_SECOND": "2", "VOXPRIA_STRANGERS_REQUESTS_PER_SECOND": "2"}
    trunk = trunk_to(agent_port, allowed_addresses=("127.0.0.8/29", "2001:db8::/32", "198.51.100.7"))
    calls = 10
    with RunningEdge.started(tmp_path_factory.mktemp("flooded"), limits) as edge, flood(edge):
        edge.route([trunk], [number_on(trunk, number)])
        kamailio = Rpc(edge.run_dir / "kamailio.sock")
        until("Kamailio knows", lambda: "127.0.0.8" in str(asyncio.run(kamailio.call("permissions.subnetDump"))))
        to = (edge.address, edge.sip_port)
        with (
            sipp("agent_answers", folder, address=AGENT, port=agent_port, calls=calls) as agent,
            sipp(
                "carrier_calls_and_hangs_up",
                folder,
                address=CARRIER,
                to=to,
                number=number,
                transport="t1",
                calls=calls,
                extra=("-r", "100"),
            ) as carrier,
        ):
            carrier.wait()
            agent.wait()
    assert [m.split()[1] for m in carrier.received if m.startswith("SIP/2.0 5")] == []


@contextlib.contextmanager
def flood(edge: RunningEdge) -> Iterator[None]:
    """Have strangers send some hundred requests a second, until the way out."""
    stop = threading.Event()

    def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.99", 0))
            request = invite("+15550001111", sock.getsockname())
            while not stop.wait(0.003):
                sock.sendto(request, (edge.address, edge.sip_port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
