"""schemathesis, with all its checks, against a running server: what the document says is what is answered.

Few examples and a fixed seed, so that it ends in time; `VOXPRIA_SCHEMATHESIS_EXAMPLES=200` looks further.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.tests.process import Process

EXAMPLES = os.environ.get("VOXPRIA_SCHEMATHESIS_EXAMPLES", "3")
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(1200)
def test_schemathesis_finds_no_failure(settings, own_cluster):
    process = Process(settings, own_cluster.url("postgres"))
    try:
        process.until("/healthz", 200)
        found = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                f"--config-file={CONFIG}",
                "run",
                f"{process.url}/v1/openapi.json",
                "--checks=all",
                "--header=Authorization: Bearer vox_sk_test_abc123xyz789",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--generation-database=none",
                "--no-color",
                "--request-timeout=120",
                "--phases=examples,coverage,fuzzing",
            ],
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
            cwd=settings.data_dir,
        )
        assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    finally:
        process.end()
