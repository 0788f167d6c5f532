"""Hostile input over every transport: refused or unanswered, never a crash, and never in the way of a call."""

import contextlib
import re
import socket
import ssl
import time
from pathlib import Path

import psutil
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import sipp
from torture import Torture, messages

_ANSWER_SECONDS = 1.0


def processes(edge: RunningEdge) -> set[int]:
    """Return the process ids of Kamailio: a crash of any ends all."""
    main = psutil.Process(edge.pid("kamailio"))
    return {main.pid, *(child.pid for child in main.children(recursive=True) if "kamailio" in child.name())}


def a_call_works(edge: RunningEdge, folder: Path, number: str, port: int) -> None:
    trunk = trunk_to(port)
    edge.route([trunk], [number_on(trunk, number)])
    folder.mkdir()
    with (
        sipp("agent_answers", folder, address=AGENT, port=port) as agent,
        sipp(
            "carrier_calls_and_hangs_up", folder, address=CARRIER, to=(edge.address, edge.sip_port), number=number
        ) as carrier,
    ):
        carrier.wait()
        agent.wait()


def codes_of(data: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"^SIP/2\.0 (\d{3}) ", data, re.M) if code != b"100"]


def test_torture_over_udp(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    a_call_works(edge, folder / "before", number, agent_port)
    before = processes(edge)
    wrong: list[str] = []
    for message in messages("+15550000000", 5999):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind((CARRIER, 0))
            sock.settimeout(_ANSWER_SECONDS)
            port = sock.getsockname()[1]
            with contextlib.suppress(OSError):  # longer than a datagram may be
                sock.sendto(message.data.replace(b":5999", b":%d" % port), (edge.address, edge.sip_port))
            got: int | None = None
            with contextlib.suppress(TimeoutError):
                while got is None:
                    got = next(iter(codes_of(sock.recv(65536))), None)
            if got not in message.answers:
                wrong.append(f"{message.name}: {got}")
    assert not wrong
    assert processes(edge) == before
    a_call_works(edge, folder / "after", number, agent_port)


def test_torture_over_tcp(edge: RunningEdge, number: str, agent_port: int, folder: Path) -> None:
    before = processes(edge)
    wrong: list[str] = []
    for message in messages("+15550000000", 5999):
        got = _answer_over_tcp(edge, message)
        if got is not None and got not in message.answers:
            wrong.append(f"{message.name}: {got}")
    assert not wrong
    assert processes(edge) == before
    a_call_works(edge, folder / "after", number, agent_port)


def _answer_over_tcp(edge: RunningEdge, message: Torture) -> int | None:
    with socket.create_connection((edge.address, edge.sip_port), 5, source_address=(CARRIER, 0)) as sock:
        sock.settimeout(_ANSWER_SECONDS / 2)
        got = b""
        with contextlib.suppress(OSError):
            sock.sendall(message.data.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"))
            while data := sock.recv(65536):
                got += data
        return next(iter(codes_of(got)), None)


def test_tls_garbage_and_slow_connections_are_in_nobodys_way(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    before = processes(edge)
    with contextlib.ExitStack() as stack:
        for i in range(500):
            port = edge.tls_port if i % 2 else edge.sip_port
            sock = stack.enter_context(socket.create_connection((edge.address, port), 5, source_address=(CARRIER, 0)))
            sock.sendall(b"\x16\x03\x01\xff\xff" if i % 4 == 1 else b"INVITE sip:x" if i % 4 == 2 else b"\x00")
        for data in (b"\x16\x03\x01" + b"\xff" * 60000, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40):
            with socket.create_connection((edge.address, edge.tls_port), 5) as sock, contextlib.suppress(OSError):
                sock.sendall(data)
        a_call_works(edge, folder / "during", number, agent_port)
        _ask_options_over_tls(edge)
    assert processes(edge) == before


def _ask_options_over_tls(edge: RunningEdge) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection((edge.address, edge.tls_port), 5, source_address=(CARRIER, 0))
    with context.wrap_socket(plain) as sock:
        host = f"{CARRIER}:{sock.getsockname()[1]}"
        sock.sendall(
            f"OPTIONS sip:{edge.address} SIP/2.0\r\nVia: SIP/2.0/TLS {host};branch=z9hG4bK{time.monotonic_ns()}\r\n"
            f"From: <sip:a@{host}>;tag=1\r\nTo: <sip:{edge.address}>\r\nCall-ID: {time.monotonic_ns()}\r\n"
            f"CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode()
        )
        sock.settimeout(10)
        assert codes_of(sock.recv(4096)) == [200]


def test_requests_of_no_call_are_refused_and_fill_no_log(edge: RunningEdge) -> None:
    lines = edge.log("kamailio").count("\n")
    for method in ("BYE", "INVITE", "UPDATE", "ACK"):
        for route in ("", f"Route: <sip:{edge.address}:{edge.sip_port};lr;call=call_x>\r\n"):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind((CARRIER, 0))
                sock.settimeout(_ANSWER_SECONDS)
                host, nonce = "{}:{}".format(*sock.getsockname()), time.monotonic_ns()
                request = (
                    f"{method} sip:a@{edge.address} SIP/2.0\r\nVia: SIP/2.0/UDP {host};branch=z9hG4bK{nonce}\r\n{route}"
                    f"From: <sip:a@{host}>;tag=1\r\nTo: <sip:a@{edge.address}>;tag=2\r\nCall-ID: {nonce}\r\n"
                    f"CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
                )
                sock.sendto(request.encode(), (edge.address, edge.sip_port))
                with contextlib.suppress(TimeoutError):
                    assert codes_of(sock.recv(65536)) == [481]
                    assert method != "ACK"
    assert edge.log("kamailio").count("\n") == lines, edge.log("kamailio")[-3000:]
