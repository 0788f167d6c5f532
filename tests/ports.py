"""Ports for the servers of tests and benches."""

import random
import socket
from contextlib import ExitStack

_FIRST, _BEYOND = 10_000, 32_000
"""The kernel lends 32768 and more to clients: one may have taken such a port by the time a server starts on it."""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody holds on any address of this machine, UDP or TCP, and that no client is ever lent."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(_FIRST, _BEYOND)
        if port not in found and _is_free(port):
            found.append(port)
    return found


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            end = stack.enter_context(socket.socket(type=kind))
            try:
                end.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True
