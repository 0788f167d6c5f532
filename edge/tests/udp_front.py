"""The way to a server over UDP, on which datagrams get lost."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from selectors import EVENT_READ, DefaultSelector

_LONGEST_BYTES = 65536


Loses = Callable[[bytes], bool]
"""Whether this datagram, of either way, is lost."""


def is_options(data: bytes) -> bool:
    """Lose OPTIONS: SIPp takes every request for one of its scenario's."""
    return data.startswith(b"OPTIONS ")


def first(start: str, cseq: str) -> Loses:
    """Lose the first datagram whose message begins so and is of this method."""
    left = [1]

    def loses(data: bytes) -> bool:
        is_it = (
            data.startswith(start.encode()) and re.search(rb"^CSeq: *\d+ %s" % cseq.encode(), data, re.M) is not None
        )
        return is_it and bool(left) and bool(left.pop())

    return loses


@contextlib.contextmanager
def udp_front(address: str, port: int, behind: tuple[str, int], loses: Loses) -> Iterator[list[bytes]]:
    """Hand on what comes to `address` and `port` to what is `behind`, and back, but for what is lost.

    Gives what was lost, oldest first.
    """
    lost: list[bytes] = []
    with (
        socket.socket(type=socket.SOCK_DGRAM) as outside,
        socket.socket(type=socket.SOCK_DGRAM) as inside,
        DefaultSelector() as selector,
    ):
        outside.bind((address, port))
        inside.bind((address, 0))
        inside.connect(behind)
        for each in (outside, inside):
            selector.register(each, EVENT_READ)
        is_over = threading.Event()
        front = threading.Thread(target=_pass_on, args=(selector, outside, inside, is_over, loses, lost), daemon=True)
        front.start()
        try:
            yield lost
        finally:
            is_over.set()
            front.join(10)


def _pass_on(
    selector: DefaultSelector,
    outside: socket.socket,
    inside: socket.socket,
    is_over: threading.Event,
    loses: Loses,
    lost: list[bytes],
) -> None:
    peer: tuple[str, int] | None = None
    while not is_over.is_set():
        for key, _ in selector.select(0.1):
            with contextlib.suppress(OSError):  # nobody listens behind us any more
                if key.fileobj is inside:
                    data = inside.recv(_LONGEST_BYTES)
                else:
                    data, peer = outside.recvfrom(_LONGEST_BYTES)
                if loses(data):
                    lost.append(data)
                elif key.fileobj is outside:
                    inside.send(data)
                elif peer is not None:
                    outside.sendto(data, peer)
