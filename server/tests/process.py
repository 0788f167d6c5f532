"""The API process as it is run."""

import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest
from voxpria_server.kit.ids import new_id

PATIENCE_SECONDS = 240


class Process:
    """`python -m voxpria_server`, on ports of its own. Several may share settings, but for their port."""

    def __init__(self, settings, url: str, *, http_port: int | None = None, **environment: str) -> None:
        self.port = http_port or settings.http_port
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {
            "PATH": os.environ["PATH"],
            "VOXPRIA_DATA_DIR": str(settings.data_dir),
            "VOXPRIA_DATABASE_URL": url,
            "VOXPRIA_HTTP_PORT": str(self.port),
            "VOXPRIA_SIP_PORT": str(settings.sip_port),
            "VOXPRIA_SIP_TLS_PORT": str(settings.sip_tls_port),
            "VOXPRIA_SANDBOX": "true",
            "VOXPRIA_REQUESTS_PER_HOUR": str(settings.requests_per_hour),
        } | environment
        self._log_path = settings.data_dir / new_id("log")
        self.log = self._log_path.open("wb")
        self._process = subprocess.Popen([sys.executable, "-m", "voxpria_server"], env=environment, stderr=self.log)

    def get(self, path: str, timeout: float = 60) -> httpx2.Response:
        headers = {"Authorization": "Bearer vox_sk_test_abc123xyz789"}
        return httpx2.get(self.url + path, headers=headers, timeout=timeout)

    def post(self, path: str, body: dict) -> dict:
        headers = {"Authorization": "Bearer vox_sk_test_abc123xyz789"}
        answer = httpx2.post(self.url + path, headers=headers, json=body, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    def until_logged(self, text: str, seconds: float = PATIENCE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.log_text():
            assert time.monotonic() < deadline, self.log_text()[-3000:]
            assert self._process.poll() is None
            time.sleep(0.05)

    def until(self, path: str, status: int) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                answer = self.get(path)
            except httpx2.TransportError:
                answer = None
            if answer is not None and answer.status_code == status:
                return answer
            time.sleep(0.05)
        pytest.fail(f"{path} never answered {status}: {self.log_text()[-3000:]}")

    def end(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal and return how many seconds it took to end."""
        started_at = time.monotonic()
        self._process.send_signal(how)
        self._process.wait(PATIENCE_SECONDS)
        self.log.close()
        return time.monotonic() - started_at

    def log_text(self) -> str:
        return self._log_path.read_text()
