"""What concurrent calls with media cost at the edge, against a bare static Kamailio with rtpengine.

`python -m bench.edge_media`, from the repository's root. Both sides are SIPp and speak all the time, one packet every
20 ms. What is counted is the time in which all calls are up and talk: no call begins or ends in it.
"""

import argparse
import contextlib
import math
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.edge_calls import paths
from bench.edge_calls.paths import Way
from bench.helper import Process, cpu_seconds, machine, percentile, running, table
from tests.ports import free_ports

HERE = Path(__file__).parent
_RATE = 20
"""Calls a second while they are set up."""
_SETTLE_SECONDS = 3
_PACKETS_PER_SECOND = 2 * 50
"""Of a call, both directions together."""


@dataclass(frozen=True)
class Plateau:
    """What one number of calls cost on one way."""

    calls: int
    failed: int
    cpu_seconds: float
    """Of one call that talks for one second."""
    memory_bytes: float
    """More than with no call, a call."""
    relayed: float
    """The share of the packets which both sides are to send that came through."""
    cpu_after_seconds: float
    """Of one call, from its hang-up on: reports, and the recording's making."""


def measure(way: Way, folder: Path, *, calls: int, seconds: int) -> Plateau:
    """Set up so many calls, let them talk for so long, hang up."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        here = Path(name)
        _write_speech(here)
        idle_bytes = _memory_bytes(way.processes)
        up_seconds = math.ceil(calls / _RATE)
        command = [
            *("sipp", f"{way.address}:{way.port}", "-sf", str(HERE / "carrier.xml"), "-s", paths.NUMBER, "-nostdin"),
            *("-i", paths.CARRIER, "-mi", paths.CARRIER, "-p", str(free_ports(1)[0]), "-r", str(_RATE)),
            *("-m", str(calls), "-l", str(calls), "-d", str(1000 * (up_seconds + 2 * _SETTLE_SECONDS + seconds))),
            *("-recv_timeout", "8000", "-timeout", f"{2 * up_seconds + seconds + 30}s"),
        ]
        with running(command, here / "carrier.log", cwd=here) as carrier:
            time.sleep(up_seconds + _SETTLE_SECONDS)
            relayed, cpu, began = _relayed_packets(way), cpu_seconds(way.processes), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            cpu = cpu_seconds(way.processes) - cpu
            relayed = _relayed_packets(way) - relayed
            busy_bytes = _memory_bytes(way.processes)
            with contextlib.suppress(subprocess.TimeoutExpired):
                carrier.wait(2 * up_seconds + 2 * _SETTLE_SECONDS + 40)
            failed = carrier.returncode != 0
        after = _until_idle(way.processes)
    return Plateau(
        calls=calls,
        failed=int(failed),
        cpu_seconds=cpu / calls / took,
        memory_bytes=(busy_bytes - idle_bytes) / calls,
        relayed=relayed / (calls * took * _PACKETS_PER_SECOND),
        cpu_after_seconds=after / calls,
    )


def _write_speech(folder: Path) -> None:
    """Write ten seconds of a tone in PCMU: what is said is nothing to a relay."""
    (folder / "speech.ulaw").write_bytes(bytes(0x80 + n % 80 for n in range(80000)))


def _until_idle(processes: Sequence[Process]) -> float:
    """Return what the processes still use after the last hang-up, until they use next to nothing."""
    total, deadline = 0.0, time.monotonic() + 120
    while time.monotonic() < deadline:
        before = cpu_seconds(processes)
        time.sleep(2)
        used = cpu_seconds(processes) - before
        total += used
        if used < 0.2:
            break
    return total


def _memory_bytes(processes: Sequence[Process]) -> int:
    """Return the proportional memory of these processes and their children: what is shared counts once."""
    total = 0
    for process in processes:
        main = psutil.Process(process.pid)
        for each in (main, *main.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_full_info().pss
    return total


def _relayed_packets(way: Way) -> int:
    """Ask rtpengine (ng protocol: a cookie of its own, then bencode) how many packets it has relayed so far."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(f"{time.monotonic_ns()} d7:command10:statisticse".encode(), (paths.CONTROL, way.port))
        answer = client.recv(1 << 16)
    found = re.search(rb"14:relayedpacketsi(\d+)e", answer)
    if found is None:
        raise ValueError(f"rtpengine does not say what it has relayed: {answer!r}")
    return int(found[1])


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[int]:
    """Run the trunk's server, for all ways the same; give its port."""
    (port,) = free_ports(1)
    _write_speech(folder)
    command = [
        *("sipp", "-sf", str(HERE / "agent.xml"), "-i", paths.AGENT, "-mi", paths.AGENT, "-p", str(port), "-nostdin"),
        *("-recv_timeout", "600000"),
    ]
    with running(command, folder / "agent.log", cwd=folder):
        yield port


def measure_all(levels: Sequence[int], seconds: int, rounds: int) -> dict[tuple[str, int], list[Plateau]]:
    """Return what each way cost at each number of calls, a plateau a round; the ways take turns."""
    found: dict[tuple[str, int], list[Plateau]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(agent(folder))
        ways = [
            stack.enter_context(paths.bare(folder / "bare", port)),
            stack.enter_context(paths.ours(folder / "ours", port)),
            stack.enter_context(paths.ours(folder / "recorded", port, is_recorded=True)),
        ]
        for way in ways:
            measure(way, folder, calls=5, seconds=1)
        for level in levels:
            for turn in range(rounds):
                for way in ways if turn % 2 == 0 else reversed(ways):
                    found.setdefault((way.name, level), []).append(measure(way, folder, calls=level, seconds=seconds))
    return found


def report(found: dict[tuple[str, int], list[Plateau]], levels: Sequence[int]) -> str:
    """Return the table: medians of the rounds."""
    names = dict.fromkeys(name for name, _ in found)
    rows = []
    for level in levels:
        base = percentile([plateau.cpu_seconds for plateau in found["bare", level]], 50)
        for name in names:
            rounds = found[name, level]
            cpu = percentile([plateau.cpu_seconds for plateau in rounds], 50)
            rows.append(
                (
                    *(level, name, sum(plateau.failed for plateau in rounds), 1000 * cpu, round(1 / cpu), cpu / base),
                    percentile([plateau.memory_bytes for plateau in rounds], 50) / 1024,
                    f"{percentile([plateau.relayed for plateau in rounds], 50):.1%}",
                    1000 * percentile([plateau.cpu_after_seconds for plateau in rounds], 50),
                )
            )
    headings = [
        *("calls", "way", "failed rounds", "CPU ms/call and s", "calls/core", "CPU ratio to bare"),
        *("memory KiB/call", "packets relayed", "CPU ms/call after it"),
    ]
    return table(headings, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge_media", description=__doc__)
    parser.add_argument("--calls", default="20,50,100", help="calls at once, one level after the other")
    parser.add_argument("--seconds", type=int, default=10, help="how long each level is measured, each round")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way at each level")
    options = parser.parse_args()
    levels = [int(level) for level in options.calls.split(",")]
    print(
        f"`python -m bench.edge_media --calls {options.calls} --seconds {options.seconds} --rounds {options.rounds}`"
        f"\n\n{machine()}\n"
    )
    print(report(measure_all(levels, options.seconds, options.rounds), levels))


if __name__ == "__main__":
    main()
