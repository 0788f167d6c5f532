"""TLS in front of a plain server: Debian's SIPp speaks none."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

_CHUNK = 65536


@dataclass
class TlsFront:
    """A TLS server that hands on what it hears to a TCP server, and back; notes the names asked for (SNI)."""

    address: str
    port: int
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    """Handshakes that came to their end."""


@contextlib.contextmanager
def tls_front(context: ssl.SSLContext, address: str, port: int, behind: tuple[str, int]) -> Iterator[TlsFront]:
    """Serve TLS on `address` and `port` with this context, in threads, until the way out."""
    front = TlsFront(address, port)

    def note(_sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        front.names.append(name)

    context.sni_callback = note  # type: ignore[assignment]
    with socket.create_server((address, port)) as listening, contextlib.ExitStack() as open_sockets:
        thread = threading.Thread(target=_accept, args=(front, context, listening, behind, open_sockets), daemon=True)
        thread.start()
        yield front
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(
    front: TlsFront,
    context: ssl.SSLContext,
    listening: socket.socket,
    behind: tuple[str, int],
    open_sockets: contextlib.ExitStack,
) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(front, context, plain, behind, open_sockets), daemon=True).start()


def _serve(
    front: TlsFront,
    context: ssl.SSLContext,
    plain: socket.socket,
    behind: tuple[str, int],
    open_sockets: contextlib.ExitStack,
) -> None:
    with contextlib.suppress(OSError):
        plain.settimeout(10)
        outside = context.wrap_socket(plain, server_side=True)
        outside.settimeout(None)
        front.connections += 1
        inside = socket.create_connection(behind, timeout=10)
        inside.settimeout(None)
        for each in (outside, inside):
            open_sockets.callback(_end, each)
        threading.Thread(target=_pass_on, args=(inside, outside), daemon=True).start()
        _pass_on(outside, inside)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
