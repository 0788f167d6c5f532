"""The real edge, alone: Kamailio, rtpengine and the agent, on ports and in a folder of their own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from certificates_of_tests import Authority
from control_plane_stand_in import TOKEN, ControlPlaneStandIn
from voxpria_routing.events import CallEvent, Ended, Invited
from voxpria_routing.snapshot import Limits, Number, Trunk

from tests.ports import free_port

T = TypeVar("T")

COMMANDS = {
    "rtpengine": ("voxpria_edge.daemons", "rtpengine"),
    "kamailio": ("voxpria_edge.daemons", "kamailio"),
    "agent": ("voxpria_edge.agent",),
}
_STOP_SECONDS = 10


def until(what: str, probe: Callable[[], T | None], seconds: float = 90) -> T:
    """Return the first true value of `probe`, or fail naming `what` and the last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}; last seen: {value!r}")
        time.sleep(0.02)


@dataclass
class Call:
    """What the control plane was told of one call."""

    id: str
    events: list[CallEvent]

    @property
    def kinds(self) -> list[str]:
        return [str(event.__struct_config__.tag) for event in self.events]

    @property
    def invited(self) -> Invited:
        return next(event for event in self.events if isinstance(event, Invited))

    @property
    def ended(self) -> Ended | None:
        return next((event for event in self.events if isinstance(event, Ended)), None)


class RunningEdge:
    """An edge and the stand-in of its control plane. `settings` are further `VOXPRIA_…` variables, by name."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, name_server: str | None = None) -> None:
        """`name_server` is asked instead of the machine's, by this edge alone (a mount of its own)."""
        self.folder, self._name_server = folder, name_server
        self.address = (settings or {}).get("VOXPRIA_SIP_ADDRESS", "127.0.0.1")
        self.sip_port, self.tls_port = free_port(), free_port()
        # two rtpengines on one address would take each other's packets
        self.media_address = f"127.1.{self.sip_port >> 8}.{self.sip_port & 255}"
        self.control_plane = ControlPlaneStandIn(free_port())
        # unix sockets take paths of some 100 bytes, and pytest's folders are long
        self.run_dir = Path(tempfile.mkdtemp(prefix="edge"))
        self.authority = Authority()
        """Signs certificates that this edge trusts, in the sandbox's place."""
        self._environment = {
            **os.environ,
            "VOXPRIA_DATA_DIR": str(folder),
            "VOXPRIA_RUN_DIR": str(self.run_dir),
            "VOXPRIA_API_URL": f"http://127.0.0.1:{self.control_plane.port}",
            "VOXPRIA_SANDBOX": "true",
            "VOXPRIA_SIP_PORT": str(self.sip_port),
            "VOXPRIA_MEDIA_ADDRESS": self.media_address,
            "VOXPRIA_SIP_TLS_PORT": str(self.tls_port),
            # a scenario expects its own requests only; the tests of health set this
            "VOXPRIA_HEALTH_SECONDS": "3600",
            **(settings or {}),
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, folder: Path, settings: Mapping[str, str] | None = None, name_server: str | None = None
    ) -> Iterator["RunningEdge"]:
        edge = cls(folder, settings, name_server)
        try:
            edge.start()
            yield edge
        except pytest.fail.Exception:
            print(edge.log("kamailio")[-4000:], edge.log("agent")[-4000:], edge.log("rtpengine")[-2000:])
            raise
        finally:
            edge.stop()

    def start(self) -> None:
        trusted = self.folder / "sandbox" / "authority.pem"
        trusted.parent.mkdir()
        trusted.write_bytes(self.authority.pem)
        token = self.folder / "secrets" / "edge_token"
        token.parent.mkdir(parents=True)
        token.write_text(TOKEN)
        self.control_plane.start()
        for part in COMMANDS:
            self.start_part(part)
        until("the edge is up", self.is_up, 60)

    def start_part(self, part: str) -> None:
        """Start one of the parts: rtpengine, kamailio, agent."""
        with (self.folder / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                [*self._mounts(), sys.executable, "-m", *COMMANDS[part]],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _mounts(self) -> list[str]:
        """Return what a part's command line begins with."""
        if self._name_server is None:
            return []
        resolver = self.folder / "resolv.conf"
        resolver.write_text(f"nameserver {self._name_server}\noptions timeout:1 attempts:1\n")
        return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(resolver)]

    def is_up(self) -> bool:
        for part, process in self._processes.items():
            if process.poll() is not None:
                pytest.fail(f"{part} ended with {process.returncode}")
        status = self.control_plane.status
        return status is not None and all(part.is_up for part in status.parts.values())

    @property
    def certificate(self) -> Path:
        """The edge's own certificate for TLS, signed by itself."""
        return self.folder / "edge" / "tls" / "certificate.pem"

    def pid(self, part: str) -> int:
        """Return the process id of a part's main process."""
        return self._processes[part].pid

    def kill_part(self, part: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part's main process, and wait for its end."""
        process = self._processes.pop(part)
        process.send_signal(number)
        process.wait(_STOP_SECONDS)
        if part == "kamailio":  # its children outlive a kill -9 of their parent by a moment
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    @contextlib.contextmanager
    def paused(self, part: str) -> Iterator[None]:
        """Hold a part's main process back (SIGSTOP) until the way out."""
        self._processes[part].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._processes[part].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for part in ("kamailio", "agent", "rtpengine"):
            process = self._processes.get(part)
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(_STOP_SECONDS)
        self.control_plane.stop()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def log(self, part: str) -> str:
        """Return what a part has logged so far."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{part}.log").read_text(errors="replace")
        return ""

    def route(self, trunks: Iterable[Trunk], numbers: Iterable[Number], limits: Limits = Limits()) -> None:  # noqa: B008
        """Replace all routes, and wait until the agent has them in force; `limits` are every account's."""
        version = self.control_plane.publish(trunks, numbers, limits)
        until("the routes are in force", lambda: self.control_plane.applied_version == version)

    def calls(self, sip_call_id: str | None = None) -> list[Call]:
        """Return the calls told of, oldest first; only those of one SIP Call-ID if given."""
        held = [Call(id_, list(told)) for id_, told in list(self.control_plane.events.items())]
        return [call for call in held if sip_call_id in (None, call.invited.sip_call_id)]

    def ended_call(self, sip_call_id: str) -> Call:
        """Return the one call of a SIP Call-ID, once its end has been told."""
        call = until(
            f"call {sip_call_id} has ended",
            lambda: next((call for call in self.calls(sip_call_id) if call.ended), None),
        )
        assert len(self.calls(sip_call_id)) == 1
        return call
