"""A server that takes calls and is silent to OPTIONS: SIPp takes every request for one of its scenario's."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from selectors import EVENT_READ, DefaultSelector

_LONGEST_BYTES = 65536


@contextlib.contextmanager
def deaf_front(address: str, port: int, behind: int) -> Iterator[None]:
    """Hand on what comes to `port` over UDP to the port `behind`, and back, but no OPTIONS, until the way out."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as outside,
        socket.socket(type=socket.SOCK_DGRAM) as inside,
        DefaultSelector() as selector,
    ):
        outside.bind((address, port))
        inside.bind((address, 0))
        inside.connect((address, behind))
        for each in (outside, inside):
            selector.register(each, EVENT_READ)
        is_over = threading.Event()
        thread = threading.Thread(target=_pass_on, args=(selector, outside, inside, is_over), daemon=True)
        thread.start()
        yield
        is_over.set()
        thread.join(10)


def _pass_on(
    selector: DefaultSelector, outside: socket.socket, inside: socket.socket, is_over: threading.Event
) -> None:
    peer: tuple[str, int] | None = None
    while not is_over.is_set():
        for key, _ in selector.select(0.1):
            with contextlib.suppress(OSError):  # nobody listens behind us any more
                if key.fileobj is inside:
                    data = inside.recv(_LONGEST_BYTES)
                    if peer is not None:
                        outside.sendto(data, peer)
                    continue
                data, peer = outside.recvfrom(_LONGEST_BYTES)
                if not data.startswith(b"OPTIONS "):
                    inside.send(data)
