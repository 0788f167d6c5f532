"""The ways from carrier to agent that are compared: none between them, a bare static Kamailio, our edge."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
from voxpria_routing import snapshot
from voxpria_routing.edge_api import Status
from voxpria_routing.events import BatchResult

from bench.helper import Process, running
from tests.ports import free_ports

HERE = Path(__file__).parent
NUMBER = "+15555551234"
CARRIER, AGENT = "127.0.0.8", "127.0.0.7"
CHILDREN = max(2, os.cpu_count() or 2)
_START_SECONDS = 30
CONTROL = "127.0.0.4"


@dataclass(frozen=True)
class Way:
    """Where the carrier sends its calls, and the processes whose work is counted."""

    name: str
    address: str
    port: int
    processes: tuple[Process, ...]


@contextlib.contextmanager
def direct(agent_port: int) -> Iterator[Way]:
    """Put nothing between them: what carrier and agent take by themselves."""
    yield Way("direct", AGENT, agent_port, ())


@contextlib.contextmanager
def bare(folder: Path, agent_port: int) -> Iterator[Way]:
    """Put a static Kamailio with rtpengine between them."""
    folder.mkdir()
    (port,) = free_ports(1)
    values = {"SIP_PORT": port, "AGENT": f"{AGENT}:{agent_port}", "CONTROL": f"{CONTROL}:{port}", "CHILDREN": CHILDREN}
    settings = [f'#!substdef "!{name}!{value}!g"' for name, value in values.items()]
    configuration = folder / "kamailio.cfg"
    configuration.write_text((HERE / "static" / "kamailio.cfg").read_text())
    (folder / "settings.cfg").write_text("\n".join(settings) + "\n")
    rtpengine = [
        *("rtpengine", "--foreground", "--log-stderr", "--log-level=4", "--config-file=none", "--table=-1"),
        *("--interface=127.0.0.1", f"--listen-ng={CONTROL}:{port}", f"--num-threads={CHILDREN}", "--delete-delay=0"),
    ]
    kamailio = ["kamailio", "-DD", "-E", "-m", "256", "-M", "16", "-f", str(configuration), "-Y", str(folder)]
    with (
        running(rtpengine, folder / "rtpengine.log") as media,
        running(kamailio, folder / "kamailio.log") as proxy,
    ):
        yield Way("bare", "127.0.0.1", port, (proxy, media))


@contextlib.contextmanager
def ours(folder: Path, agent_port: int, *, is_recorded: bool = False) -> Iterator[Way]:
    """Put our edge between them, all on, with a control plane that takes whatever it is told."""
    folder.mkdir()
    port, tls_port = free_ports(2)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "edge_token").write_text("bench")
    with _control_plane(agent_port, is_recorded=is_recorded) as (control_plane, http_port):
        environment = {
            "VOXPRIA_DATA_DIR": str(folder),
            "VOXPRIA_RUN_DIR": str(folder),
            "VOXPRIA_API_URL": f"http://127.0.0.1:{http_port}",
            "VOXPRIA_SIP_PORT": str(port),
            "VOXPRIA_SIP_TLS_PORT": str(tls_port),
            "VOXPRIA_CONTROL_ADDRESS": CONTROL,
            # rtpengines on one address would take each other's packets
            "VOXPRIA_MEDIA_ADDRESS": f"127.1.{port >> 8}.{port & 255}",
        }

        def daemon(*arguments: str) -> AbstractContextManager[Process]:
            command = [sys.executable, "-m", *arguments]
            return running(command, folder / f"{arguments[-1]}.log", environment)

        with (
            daemon("voxpria_edge.daemons", "rtpengine") as media,
            daemon("voxpria_edge.daemons", "kamailio") as proxy,
            daemon("voxpria_edge.agent") as agent,
        ):
            if not control_plane.has_ready_edge.wait(_START_SECONDS):
                raise TimeoutError(f"the edge is not up; see {folder}")
            yield Way("recorded" if is_recorded else "ours", "127.0.0.1", port, (proxy, media, agent))


class _ControlPlane(ThreadingHTTPServer):
    """Gives one snapshot, and acknowledges every event."""

    daemon_threads = True

    def __init__(self, routes: snapshot.Snapshot) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes = snapshot.encode(routes)
        self.has_ready_edge = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _ControlPlane

    def do_GET(self) -> None:
        if parse_qs(urlsplit(self.path).query)["after"] == ["0"]:
            self._answer(200, self.server.routes)
        else:
            time.sleep(15)
            self._answer(304)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/edge/v1/status":
            status = msgspec.json.decode(body, type=Status)
            if status.applied_version and all(part.is_up for part in status.parts.values()):
                self.server.has_ready_edge.set()
        is_batch = self.path == "/edge/v1/events"
        self._answer(200 if is_batch else 204, msgspec.json.encode(BatchResult()) if is_batch else b"")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(204)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _control_plane(agent_port: int, *, is_recorded: bool) -> Iterator[tuple[_ControlPlane, int]]:
    with _ControlPlane(_routes(agent_port, is_recorded=is_recorded)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, server.server_address[1]
        finally:
            server.shutdown()


def _routes(agent_port: int, *, is_recorded: bool) -> snapshot.Snapshot:
    trunk = snapshot.Trunk(
        id="trunk_bench",
        account_id="acct_bench",
        mode="test",
        name="bench",
        provider="generic",
        server=AGENT,
        port=agent_port,
        transport="udp",
        allowed_addresses=(CARRIER,),
        is_recorded=is_recorded,
    )
    number = snapshot.Number(
        id="phone_bench",
        e164=NUMBER,
        account_id="acct_bench",
        mode="test",
        carrier_trunk_id=trunk.id,
        agent_trunk_id=trunk.id,
        first_message="Hello! How can I help you today?",
    )
    return snapshot.Snapshot(version=1, trunks={trunk.id: trunk}, numbers={NUMBER: (number,)})
