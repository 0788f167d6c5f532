"""How soon `./run`, started again, has everything up, and what that costs: `python -m bench.start`.

The whole product, by `./run` itself, on ports and a folder of its own; the first start, which makes the database, is
not counted. Counted is until it says that all is up; processor time is that of every process that it started by then.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from bench.helper import machine, percentile, table
from tests.ports import free_ports

_ROOT = Path(__file__).parents[1]
_LONGEST_SECONDS = 120


def start(environment: dict[str, str], log: Path) -> tuple[float, float]:
    """Start everything once and end it; return the seconds until it was up, and the processor's seconds until then."""
    began_at = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen([_ROOT / "run"], env=environment, stdout=output, stderr=output)
    try:
        while b"Up after" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() - began_at > _LONGEST_SECONDS:
                raise RuntimeError(log.read_text())
            time.sleep(0.01)
        seconds = time.monotonic() - began_at
        main = psutil.Process(process.pid)
        # with the children's: those that have ended count too
        spent = [each.cpu_times() for each in (main, *main.children(recursive=True))]
        return seconds, sum(t.user + t.system + t.children_user + t.children_system for t in spent)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ports = dict(zip(("HTTP_PORT", "SIP_PORT", "SIP_TLS_PORT"), map(str, free_ports(3)), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        given = {f"VOXPRIA_{name}": value for name, value in (*ports.items(), ("DATA_DIR", f"{folder}/var"))}
        environment = {**os.environ, **given}
        started = [start(environment, Path(folder) / "run.log") for _ in range(options.rounds + 1)][1:]
    seconds, spent = zip(*started, strict=True)
    print(f"`python -m bench.start --rounds {options.rounds}`\n\n{machine()}\n")
    row = (len(started), min(seconds), percentile(seconds, 50), min(spent), percentile(spent, 50))
    print(table(["starts", "up after s, least", "p50", "processor s, least", "p50"], [row]))


if __name__ == "__main__":
    main()
