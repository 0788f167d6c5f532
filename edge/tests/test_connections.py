"""Connections that say nothing are closed soon, those of sides that are known stay."""

import socket
import time
from collections.abc import Iterator

import pytest
from routes_of_tests import CARRIER, number_on, trunk_to
from running_edge import RunningEdge, until

_STRANGER = "127.0.0.9"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEdge]:
    """An edge that closes strangers' connections after two seconds."""
    settings = {"VOXPRIA_STRANGER_CONNECTION_SECONDS": "2"}
    with RunningEdge.started(tmp_path_factory.mktemp("impatient"), settings) as running:
        yield running


def options(edge: RunningEdge, sock: socket.socket) -> bytes:
    """Ask for options over a connection, and return what comes; nothing if it is closed or nobody answers."""
    host, unique = "{}:{}".format(*sock.getsockname()), time.monotonic_ns()
    sock.sendall(
        f"OPTIONS sip:{edge.address} SIP/2.0\r\nVia: SIP/2.0/TCP {host};branch=z9hG4bK{unique}\r\n"
        f"From: <sip:a@{host}>;tag=1\r\nTo: <sip:{edge.address}>\r\nCall-ID: {unique}\r\nCSeq: 1 OPTIONS\r\n"
        "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n".encode()
    )
    return sock.recv(65535)


@pytest.mark.parametrize("is_tls", [False, True])
def test_who_says_nothing_is_not_waited_for(impatient: RunningEdge, number: str, is_tls: bool) -> None:
    trunk = trunk_to(9)
    impatient.route([trunk], [number_on(trunk, number)])
    port = impatient.tls_port if is_tls else impatient.sip_port
    to = (impatient.address, impatient.sip_port)
    with (
        socket.create_connection(to, 10, source_address=(CARRIER, 0)) as carrier,
        socket.create_connection((impatient.address, port), 10, source_address=(_STRANGER, 0)) as stranger,
    ):
        carrier.settimeout(60)
        stranger.settimeout(60)
        until("the carrier is known", lambda: options(impatient, carrier).startswith(b"SIP/2.0 200"))
        assert stranger.recv(1) == b"", "the stranger's connection is closed"
        assert options(impatient, carrier).startswith(b"SIP/2.0 200"), "the carrier's, as old as that one, is not"
