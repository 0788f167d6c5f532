"""Start VoxPria by its launcher, and use it from outside only: HTTP, SIP, signals."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil
import pytest

from tests.ports import free_ports

T = TypeVar("T")
TEST_KEY = "vox_sk_test_abc123xyz789"
ROLES = {
    "api": "voxpria_server",
    "agent": "voxpria_edge.agent",
    "sandbox": "voxpria_sandbox.main",
    "kamailio": "kamailio",
    "rtpengine": "rtpengine",
    "postgres": "postgres",
}
"""What is looked for in a process's command line, by part."""


def until(what: str, probe: Callable[[], T], seconds: float = 90) -> T:
    """Return the first true value of `probe`, or fail naming `what` and the last value."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}; last seen: {value!r}")
        time.sleep(0.05)


@dataclass
class Product:
    """A running instance."""

    data: Path
    http_port: int
    sip_port: int
    sip_tls_port: int
    process: "subprocess.Popen[bytes]"
    numbers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def started(cls, data: Path) -> Iterator["Product"]:
        http_port, sip_port, sip_tls_port = free_ports(3)
        environment = {
            **os.environ,
            "VOXPRIA_DATA_DIR": str(data),
            "VOXPRIA_HTTP_PORT": str(http_port),
            "VOXPRIA_SIP_PORT": str(sip_port),
            "VOXPRIA_SIP_TLS_PORT": str(sip_tls_port),
            "VOXPRIA_REQUESTS_PER_HOUR": "1000000",  # tests wait by asking again and again
            "VOXPRIA_IMPORTS_PER_MINUTE": "1000",  # each file of tests has numbers of its own
        }
        data.mkdir(parents=True, exist_ok=True)
        with (data / "launcher.out").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "voxpria_launcher.main"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        product = cls(data, http_port, sip_port, sip_tls_port, process)
        try:
            until("readyz is 200", product.is_ready, 90)
            yield product
        except pytest.fail.Exception:
            print((data / "launcher.out").read_text(errors="replace")[-6000:])
            raise
        finally:
            product.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.2:{self.http_port}"

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the launcher ended with {self.process.returncode}")
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def api(self, method: str, path: str, body: object = None, expect: int | None = None) -> dict[str, Any]:
        """Ask the API under /v1 with the documented test key; fail unless the status is `expect` (or 2xx)."""
        answer = httpx2.request(
            method,
            f"{self.url}/v1{path}",
            json=body,
            headers={"Authorization": f"Bearer {TEST_KEY}"},
            timeout=30,
        )
        good = answer.status_code == expect if expect else answer.is_success
        assert good, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def number_with_a_carrier(self, e164: str, *, username: str, password: str, **config: object) -> dict[str, Any]:
        """A number that can place calls, in service: on a carrier's trunk that is recorded, answered by ElevenLabs.

        The agent's trunk has the username and password; `config` is the number's.
        """
        carrier = {
            "name": f"Carrier of {e164}",
            "provider": "generic",
            "credentials": {"username": "test_user", "password": "test_pass"},
            "config": {"server": "sip.test.voxpria.com", "record": True},
        }
        agents = {
            "name": f"Agents of {e164}",
            "provider": "elevenlabs",
            "credentials": {"username": username, "password": password},
        }
        carrier_id, agents_id = (self.api("POST", "/sip/trunks", t, expect=201)["id"] for t in (carrier, agents))
        body = {
            "phone_number": e164,
            "trunk_id": carrier_id,
            "engine": "elevenlabs",
            "config": {"engine_trunk_id": agents_id, **config},
        }
        imported = self.api("POST", "/phone-numbers/import", body, expect=201)
        self.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
        return self.api("GET", f"/phone-numbers/{imported['id']}")

    def set_max_duration(self, number: dict[str, Any], seconds: int) -> None:
        """Change a number's max_duration, and wait until the edge has it."""
        self.api("PATCH", f"/phone-numbers/{number['id']}", {"config": {"max_duration": seconds}})
        until("the edge has the new route", self.routes_are_applied)

    def routes_are_applied(self) -> bool:
        """Whether the edge has the routes as they are now."""
        with contextlib.suppress(httpx2.HTTPError):
            return bool(httpx2.get(f"{self.url}/readyz", timeout=15).json()["routes_are_applied"])
        return False

    def call(self, to: str, **options: object) -> dict[str, Any]:
        """Place a call from the sandbox's carrier; return its result, the last line of its progress."""
        lines: list[dict[str, Any]] = []
        with httpx2.stream(
            "POST", f"{self.sandbox_url}/carrier/calls", json={"to": to, **options}, timeout=60
        ) as answer:
            answer.raise_for_status()
            lines.extend(json.loads(line) for line in answer.iter_lines() if line)
        return lines[-1]

    def calls_to(self, number: str) -> list[dict[str, Any]]:
        """The call log of one number, newest first."""
        return list(self.api("GET", f"/calls?phone_number=%2B{number.removeprefix('+')}&per_page=100")["data"])

    def sandbox_hook(self, name: str) -> list[dict[str, Any]]:
        """What one of the sandbox's receivers of webhooks got."""
        return list(httpx2.get(f"{self.sandbox_url}/hooks/{name}", timeout=10).json()["requests"])

    def ended_call(self, call_id: str) -> dict[str, Any]:
        """The call's record, once it is ended and measured."""

        def ended() -> dict[str, Any] | None:
            # an edge that was just restarted may still be about to report
            record = next((c for c in self.api("GET", "/calls?per_page=100")["data"] if c["id"] == call_id), None)
            if record is None:
                return None
            record = self.api("GET", f"/calls/{call_id}")
            return record if record["status"] != "in-progress" else None

        return until(f"{call_id} has ended", ended, 20)

    def pids(self, role: str) -> list[psutil.Process]:
        """The processes of one part, its main one first."""
        mine = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in mine if _runs(p, ROLES[role])]

    def main_pid(self, role: str) -> psutil.Process:
        return until(f"{role} runs", lambda: self.pids(role))[0]


def _runs(process: psutil.Process, word: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(word in argument for argument in process.cmdline())
    return False
