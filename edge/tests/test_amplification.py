"""Whoever forges the source of a datagram has us send there: never more than came."""

import contextlib
import socket
import time
from collections.abc import Iterator

from mutations import mutated
from routes_of_tests import number_on, trunk_to
from running_edge import RunningEdge, until
from test_fuzz import is_idle
from torture import messages


def _smallest(method: str, tag: str, unique: str) -> bytes:
    """A request with as little in it as it may have."""
    return (
        f"{method} sip:a SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK{unique}\r\nf:sip:a;tag=1\r\nt:sip:b{tag}\r\n"
        f"i:{unique}\r\nCSeq:1 {method}\r\n\r\n"
    ).encode()


def test_strangers_never_get_back_more_than_they_sent(edge: RunningEdge, number: str, agent_port: int) -> None:
    """Whoever forges a source has us send there: of each message, and of all, no more bytes go out than came in."""
    trunk = trunk_to(agent_port, username="anybody", password="secret")
    edge.route([trunk], [number_on(trunk, number)])
    methods = ("INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "UPDATE", "INFO", "FOO")
    asked = [message.data for message in messages(number, 5999)]
    asked += [_smallest(method, tag, f"{method}{tag[5:]}") for method in methods for tag in ("", ";tag=x")]
    asked += mutated(475, 300, number, ("127.0.5.1", 5999))
    with contextlib.ExitStack() as stack:
        senders = [_sender(stack, f"127.0.{5 + i // 250}.{1 + i % 250}") for i in range(len(asked))]
        for sender, data in zip(senders, asked, strict=True):
            with contextlib.suppress(OSError):  # longer than a datagram may be
                sender.sendto(data, (edge.address, edge.sip_port))
            time.sleep(0.02)
        until("no transaction is left", lambda: is_idle(edge))
        got = [b"".join(_all(sender)) for sender in senders]
    sent_bytes, got_bytes = sum(map(len, asked)), sum(map(len, got))
    more = [
        (len(back), len(data), data[:60], back[:60])
        for data, back in zip(asked, got, strict=True)
        if len(back) > len(data)
    ]
    assert not more
    assert 0 < got_bytes < sent_bytes


def _sender(stack: contextlib.ExitStack, address: str) -> socket.socket:
    sender = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    sender.bind((address, 0))
    sender.setblocking(False)
    return sender


def _all(sock: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while True:
            yield sock.recv(65536)
