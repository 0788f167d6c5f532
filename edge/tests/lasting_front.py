"""TCP or TLS in front of a SIPp server, which ends with its connection: here that one stays when those outside end."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

_CHUNK = 65536


class LastingFront:
    """Hands on what any connection from outside brings to the one inside, and what comes from there to the newest."""

    def __init__(self, listening: socket.socket, behind: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self._listening, self._context = listening, context
        self._inside = socket.create_connection(behind, timeout=10)
        self._inside.settimeout(None)
        self._outside: list[socket.socket] = []

    def accept(self) -> None:
        """Take connections until the front is closed."""
        threading.Thread(target=self._bring_back, daemon=True).start()
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listening.accept()
                threading.Thread(target=self._bring_in, args=(plain,), daemon=True).start()

    def _bring_in(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            outside = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            self._outside.append(outside)
            while data := outside.recv(_CHUNK):
                self._inside.sendall(data)

    def _bring_back(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            while data := self._inside.recv(_CHUNK):
                self._outside[-1].sendall(data)

    def close(self) -> None:
        """Close all of it."""
        for sock in (self._listening, self._inside, *self._outside):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def lasting_front(address: str, port: int, behind: tuple[str, int], context: ssl.SSLContext | None) -> Iterator[None]:
    """Serve TCP, or TLS with a context, on `address` and `port`, in threads, until the way out."""
    front = LastingFront(socket.create_server((address, port)), behind, context)
    thread = threading.Thread(target=front.accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        front.close()
        thread.join(10)
