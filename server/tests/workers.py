"""Worker processes of a test's own."""

import os
import signal
import subprocess
import sys


class WorkerProcess:
    """`python -m voxpria_server.worker`, to be killed at will."""

    def __init__(self, settings, url: str, **more: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "VOXPRIA_DATA_DIR": str(settings.data_dir),
            "VOXPRIA_DATABASE_URL": url,
            "VOXPRIA_SANDBOX": "true",
            **more,
        }
        self._log = (settings.data_dir / "worker.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "voxpria_server.worker"], env=environment, stderr=self._log, stdout=self._log
        )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)
        self._log.close()
