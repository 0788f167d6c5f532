"""Every port that the parts will take, looked at before any of them starts."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psutil

from voxpria_launcher.settings import Settings


@dataclass(frozen=True)
class Port:
    """A port that a part will listen on, and the setting that moves it."""

    what: str
    kind: Literal["tcp", "udp"]
    address: str
    number: int
    setting: str


def needed(settings: Settings) -> list[Port]:
    """Return the ports that these settings will take."""
    both: tuple[Literal["udp"], Literal["tcp"]] = ("udp", "tcp")
    ports = [Port("the API", "tcp", settings.http_address, settings.http_port, "VOXPRIA_HTTP_PORT")]
    for address in filter(None, (settings.sip_address, settings.sip_address_v6)):
        ports += [Port("SIP", kind, address, settings.sip_port, "VOXPRIA_SIP_PORT") for kind in both]
        ports += [Port("SIP over TLS", "tcp", address, settings.sip_tls_port, "VOXPRIA_SIP_TLS_PORT")]
    ports += [
        Port("the edge's own control", kind, settings.control_address, settings.sip_port, "VOXPRIA_SIP_PORT")
        for kind in both
    ]
    return ports + (_sandbox_ports(settings) if settings.sandbox else [])


def _sandbox_ports(settings: Settings) -> list[Port]:
    address = settings.sandbox_address
    return [
        Port("the sandbox's HTTP", "tcp", address, settings.http_port, "VOXPRIA_HTTP_PORT"),
        Port("the sandbox's SIP", "udp", address, settings.sip_port, "VOXPRIA_SIP_PORT"),
        Port("the sandbox's SIP", "tcp", address, settings.sip_port, "VOXPRIA_SIP_PORT"),
        Port("the sandbox's SIP over TLS", "tcp", address, settings.sip_tls_port, "VOXPRIA_SIP_TLS_PORT"),
    ]


def problems(settings: Settings) -> list[str]:
    """Return a sentence for each port that can't be had: which, who holds it, what to do."""
    return [_sentence(port, error) for port in needed(settings) if (error := _try(port))]


def _try(port: Port) -> OSError | None:
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    kind = socket.SOCK_STREAM if port.kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as probe:
        if port.kind == "tcp":  # as servers do: a closed connection's TIME_WAIT is no obstacle
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.address, port.number))
            if port.kind == "tcp":
                probe.listen(1)
        except OSError as error:
            return error
    return None


def _sentence(port: Port, error: OSError) -> str:
    needs = f"{port.what} needs {port.kind} {port.address}:{port.number}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        holder = next(_holders(port), None)
        held = f", held by {holder}" if holder else ""
        return f"{needs}{held}. End that process, or set {port.setting} to a free port."
    if error.errno == errno.EACCES:
        return f"{needs}. Ports below 1024 are root's; set {port.setting} to a higher one, or start this as root."
    return f"{needs}. Set the address to one that this machine has."


def _holders(port: Port) -> Iterator[str]:
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(port.kind):
            local = connection.laddr
            is_holder = local and local.port == port.number and local.ip in {port.address, "0.0.0.0", "::"}  # noqa: S104
            if is_holder and connection.pid and connection.status in {psutil.CONN_LISTEN, psutil.CONN_NONE}:
                with contextlib.suppress(psutil.Error):
                    yield f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
