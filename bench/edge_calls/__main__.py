"""Calls per second and added set-up delay of the edge, against a bare static Kamailio with rtpengine.

`python -m bench.edge_calls`, from the repository's root. One SIPp is the carrier, another the agent; both play the
same scenario on every way, the ways take turns in alternating order, and each step is bounded in calls and time.
"""

import argparse
import contextlib
import csv
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.edge_calls import paths
from bench.edge_calls.paths import HERE, Way
from bench.helper import cpu_seconds, machine, percentile, running, table
from tests.ports import free_ports

_TALK_MS = 200
_GRACE_SECONDS = 20
_WARM_UP_CALLS = 20


@dataclass
class Step:
    """What came of one rate on one way, all rounds together."""

    calls: int = 0
    failed: int = 0
    cpu_seconds: float = 0.0
    to_180_ms: list[float] = field(default_factory=list)
    to_200_ms: list[float] = field(default_factory=list)


def call(way: Way, folder: Path, *, rate: int, calls: int, into: Step) -> None:
    """Place calls on one way, and add what came of them."""
    with tempfile.TemporaryDirectory(dir=folder) as here:
        before = cpu_seconds(way.processes)
        command = [
            *("sipp", f"{way.address}:{way.port}", "-sf", str(HERE / "carrier.xml"), "-s", paths.NUMBER),
            *(
                "-i",
                paths.CARRIER,
                "-p",
                str(free_ports(1)[0]),
                "-mi",
                paths.CARRIER,
                "-r",
                str(rate),
                "-m",
                str(calls),
                "-l",
                str(rate * 10),
            ),
            *(
                "-d",
                str(_TALK_MS),
                "-timeout",
                f"{calls // rate + _GRACE_SECONDS}s",
                "-nostdin",
                "-recv_timeout",
                "8000",
            ),
            *("-trace_shortmsg", "-shortmessage_file", "messages.csv", "-trace_stat", "-stf", "stat.csv", "-fd", "1"),
        ]
        output = subprocess.DEVNULL
        subprocess.run(command, cwd=here, stdin=output, stdout=output, stderr=output, check=False, timeout=300)
        into.cpu_seconds += cpu_seconds(way.processes) - before
        _read(Path(here), into)


def _read(folder: Path, into: Step) -> None:
    with (folder / "stat.csv").open() as file:
        last = list(csv.DictReader(file, delimiter=";"))[-1]
    into.calls += int(last["SuccessfulCall(C)"])
    into.failed += int(last["FailedCall(C)"])
    _read_times((folder / "messages.csv").read_text().splitlines(), into)


def _read_times(lines: list[str], into: Step) -> None:
    """Take the times of SIPp's message log, which are true to the microsecond; its own timers tick every 4 ms."""
    sent: dict[str, float] = {}
    for line in lines:
        _date, _time, at, way, call_id, cseq, first_line = line.split("\t", 6)
        if way == "S" and first_line.startswith("INVITE"):
            sent.setdefault(call_id, float(at))
        elif call_id not in sent:
            continue  # a belated repetition, to the carrier of the step before
        elif first_line.startswith("SIP/2.0 180"):
            into.to_180_ms.append(1000 * (float(at) - sent[call_id]))
        elif first_line.startswith("SIP/2.0 200") and cseq == "CSeq:1 INVITE":
            into.to_200_ms.append(1000 * (float(at) - sent[call_id]))


@contextlib.contextmanager
def agent(folder: Path) -> Iterator[int]:
    """Run the trunk's server, for all ways the same; give its port."""
    (port,) = free_ports(1)
    command = [
        *("sipp", "-sf", str(HERE / "agent.xml"), "-i", paths.AGENT, "-mi", paths.AGENT, "-p", str(port), "-nostdin"),
        *("-recv_timeout", "20000"),
    ]
    with running(command, folder / "agent.log", cwd=folder):
        yield port


def measure(rates: list[int], calls_seconds: int, rounds: int) -> dict[tuple[str, int], Step]:
    """Return what came of each way at each rate."""
    found: dict[tuple[str, int], Step] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(agent(folder))
        ways = [
            stack.enter_context(paths.direct(port)),
            stack.enter_context(paths.bare(folder / "bare", port)),
            stack.enter_context(paths.ours(folder / "ours", port)),
        ]
        for way in ways:
            call(way, folder, rate=10, calls=_WARM_UP_CALLS, into=Step())
        for rate in rates:
            for turn in range(rounds):
                for way in ways if turn % 2 == 0 else reversed(ways):
                    step = found.setdefault((way.name, rate), Step())
                    call(way, folder, rate=rate, calls=rate * calls_seconds, into=step)
    return found


def report(found: dict[tuple[str, int], Step], rates: list[int]) -> str:
    """Return the tables."""
    rows, ratios = [], []
    for rate in rates:
        for name in ("direct", "bare", "ours"):
            step = found[name, rate]
            rows.append(
                (
                    *(rate, name, step.calls, step.failed),
                    *(percentile(step.to_180_ms, 50), percentile(step.to_180_ms, 95)),
                    *(percentile(step.to_200_ms, 50), percentile(step.to_200_ms, 95)),
                    1000 * step.cpu_seconds / max(1, step.calls),
                )
            )
        ratios.append((rate, *_ratios(found["direct", rate], found["bare", rate], found["ours", rate])))
    headings = ["calls/s", "way", "calls", "failed", "180 p50 ms", "p95", "200 p50 ms", "p95", "CPU ms/call"]
    compared = ["calls/s", "added to 180, p50 ms: bare", "ours", "ratio", "CPU ratio ours/bare"]
    most = {name: max((r for r in rates if not found[name, r].failed), default=0) for name in ("bare", "ours")}
    return (
        f"{table(headings, rows)}\n\n{table(compared, ratios)}\n\n"
        f"Highest rate tried without a failed call: bare {most['bare']}, ours {most['ours']} calls/s"
        f" (ratio {most['ours'] / max(1, most['bare']):.2f})."
    )


def _ratios(direct: Step, bare: Step, ours: Step) -> tuple[float, float, float, float]:
    base = percentile(direct.to_180_ms, 50)
    added_by_bare, added_by_us = (percentile(step.to_180_ms, 50) - base for step in (bare, ours))
    cpu_bare, cpu_ours = (step.cpu_seconds / max(1, step.calls) for step in (bare, ours))
    return added_by_bare, added_by_us, added_by_us / added_by_bare, cpu_ours / cpu_bare


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge_calls", description=__doc__)
    parser.add_argument("--rates", default="20,50,100,150,200", help="calls per second, one after the other")
    parser.add_argument("--seconds", type=int, default=5, help="how long each rate is held, each round")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way at each rate")
    options = parser.parse_args()
    rates = [int(rate) for rate in options.rates.split(",")]
    command = (
        f"python -m bench.edge_calls --rates {options.rates} --seconds {options.seconds} --rounds {options.rounds}"
    )
    print(f"`{command}`\n\n{machine()}\n")
    print(report(measure(rates, options.seconds, options.rounds), rates))


if __name__ == "__main__":
    main()
