"""Measure webhooks: how long after an edge's report the receiver has the event, and how many a second go out.

.venv/bin/python -m bench.deliveries; the README says what it does.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from voxpria_edge.calls.reporter import report
from voxpria_edge.calls.spool import Change, Spool
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_routing.events import Batch, BatchResult, CallEvent

from bench.api.cluster import Cluster, cluster, pgbench
from bench.api.server import EDGE_TOKEN, Api, api
from bench.helper import cpu_seconds, machine, percentile, table
from tests.ports import free_ports

_ACCOUNTS = 20
_EDGE = "edge_bench"
_ADD = """
INSERT INTO accounts (id, name, created_at) VALUES (%(account)s, 'bench', now());
"""
_ADD_KEY = """
INSERT INTO api_keys (id, account_id, mode, name, secret_sha256, scopes, created_at)
VALUES (%(id)s, %(account)s, 'live', 'bench', %(digest)s, ARRAY['webhooks:write'], now())
"""
_BARE = """
BEGIN;
INSERT INTO bare_events (body) VALUES (repeat('x', 300)) RETURNING id \\gset
INSERT INTO bare_deliveries (event, status) VALUES (:id, 'pending');
COMMIT;
BEGIN;
INSERT INTO bare_attempts (event, status_code) VALUES (:id, 200);
UPDATE bare_deliveries SET status = 'succeeded' WHERE event = :id;
COMMIT;
"""
"""What a delivery can't be without: event and delivery in one transaction, attempt and outcome in another."""

_BARE_TABLES = """
CREATE TABLE IF NOT EXISTS bare_events (id bigserial PRIMARY KEY, body text);
CREATE TABLE IF NOT EXISTS bare_deliveries (event bigint PRIMARY KEY, status text);
CREATE TABLE IF NOT EXISTS bare_attempts (event bigint PRIMARY KEY, status_code int);
"""


class _Noting(ControlPlane):
    """The edge's own way to the control plane, which notes when events were taken."""

    def __init__(self, url: str) -> None:
        super().__init__(url, EDGE_TOKEN, _EDGE)
        self.taken: dict[str, float] = {}
        """By the event's id."""
        self.repeated = 0
        """Reports that were not taken, and sent again."""

    async def report(self, batch: Batch) -> BatchResult:
        """Report."""
        try:
            result = await super().report(batch)
        except ControlPlaneError:
            self.repeated += 1
            raise
        assert not result.rejected, result
        now = time.perf_counter()
        self.taken.update({event.id: now for event in batch.events})
        return result


class Bench:
    """The edge that reports, by its own spool and reporter; the receiver that hears; and the times of both."""

    def __init__(self, spool: Spool, control_plane: _Noting) -> None:
        self._spool, self._control_plane = spool, control_plane
        self.sent: dict[tuple[str, str], float] = {}
        self.arrived: dict[tuple[str, str], float] = {}
        self._last: dict[tuple[str, str], str] = {}

    @property
    def committed(self) -> dict[tuple[str, str], float]:
        """When what made each webhook event was taken."""
        taken = self._control_plane.taken
        return {key: taken[id_] for key, id_ in self._last.items() if id_ in taken}

    @property
    def repeated(self) -> int:
        """How many reports were sent again."""
        return self._control_plane.repeated

    def forget(self) -> None:
        """Begin anew."""
        for times in (self.sent, self.arrived, self._last, self._control_plane.taken):
            times.clear()

    async def hear(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        now = time.perf_counter()
        body = json.loads(await request.read())
        self.arrived.setdefault((body["data"]["call_id"], body["event"]), now)
        return web.Response()

    async def tell(self, name: str, *events: dict[str, Any]) -> None:
        """Have events of one call reported, the last of which makes the webhook event `name`."""
        key = (events[0]["call_id"], name)
        self.sent[key], self._last[key] = time.perf_counter(), events[-1]["id"]
        await self._spool.commit(Change(events=[msgspec.convert(event, CallEvent) for event in events]))

    async def all_arrived(self, seconds: float) -> None:
        """Wait until what was sent has arrived."""
        deadline = time.monotonic() + seconds
        while len(self.arrived) < len(self.sent) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _events(number: int, account: str, call_id: str) -> tuple[dict[str, Any], ...]:
    now = datetime.now(UTC).isoformat()
    common = {"call_id": call_id, "at": now}
    invited = {
        "kind": "invited",
        "id": f"evt_i{number}",
        "account_id": account,
        "mode": "live",
        "from": "anonymous",
        "to": "+12125551234",
        "number_id": None,
        "trunk_id": None,
        "agent_id": None,
        "edge_id": _EDGE,
        "sip_call_id": "x",
        "source": "127.0.0.8:5060",
        "transport": "udp",
        "explanation": {"summary": "It goes to the agent."},
    }
    answered = {"kind": "answered", "id": f"evt_a{number}", "recording": False}
    ended = {
        "kind": "ended",
        "id": f"evt_e{number}",
        "cause": "hangup",
        "by": "caller",
        "sip_code": 200,
        "sip_reason": "OK",
    }
    return tuple({**common, **event} for event in (invited, answered, ended))


def _call_id(number: int) -> str:
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    count = time.time_ns() + number
    return "call_" + "".join(digits[count >> shift & 31] for shift in range(125, -1, -5))


async def _steady(bench: Bench, rate: int, seconds: float, first: int) -> None:
    """Report calls whose events come at that rate: half of them starts, half ends."""
    begin, tasks = time.perf_counter(), []
    for n in range(int(rate * seconds / 2)):
        await asyncio.sleep(max(0.0, begin + n * 2 / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(_one(bench, first + n)))
    await asyncio.gather(*tasks)


async def _one(bench: Bench, number: int) -> None:
    invited, answered, ended = _events(number, f"acct_{number % _ACCOUNTS}", _call_id(number))
    await bench.tell("call.started", invited)
    await asyncio.sleep(0.5)
    await bench.tell("call.ended", answered, ended)


async def _measure(found: Cluster, ours: Api, work: Path, given: argparse.Namespace) -> None:
    (port,) = free_ports(1)
    async with aiohttp.ClientSession() as session, contextlib.AsyncExitStack() as stack:
        control_plane = _Noting(ours.url)
        stack.push_async_callback(control_plane.close)
        spool = Spool(work / "spool.sqlite")
        await spool.open()
        stack.push_async_callback(spool.close)
        bench = Bench(spool, control_plane)
        app = web.Application()
        app.router.add_post("/", bench.hear)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await _subscribe(found, ours.url, session, f"http://127.0.0.1:{port}/")
        for task in (spool.run(), report(_EDGE, spool, control_plane)):
            stack.callback(asyncio.create_task(task).cancel)
        await _steady(bench, 20, 3, first=0)  # to warm up
        await bench.all_arrived(30)
        rows = []
        for rate in given.rates:
            bench.forget()
            used = [cpu_seconds([process]) for process in (ours.process, found.process)]
            await _steady(bench, rate, given.seconds, first=time.time_ns())
            await bench.all_arrived(60)
            used = [
                cpu_seconds([process]) - before
                for process, before in zip((ours.process, found.process), used, strict=True)
            ]
            from_report = [(bench.arrived[key] - at) * 1000 for key, at in bench.sent.items() if key in bench.arrived]
            from_commit = [
                (bench.arrived[key] - at) * 1000 for key, at in bench.committed.items() if key in bench.arrived
            ]
            missing = len(bench.sent) - len(bench.arrived)
            times_ms = [percentile(values, p) for values in (from_report, from_commit) for p in (50, 99)]
            rows.append((rate, len(bench.sent), missing, *times_ms, *(1000 * each / len(bench.sent) for each in used)))
        headings = (
            *("events/s", "events", "missing", "from report, p50 ms", "p99", "from commit, p50 ms", "p99"),
            *("CPU ms an event, ours", "PostgreSQL"),
        )
        print("\n" + table(headings, rows) + f"\n\nreports sent again: {bench.repeated}", flush=True)
        burst = await _burst(bench, given.burst)
        posts = await _bare_posts(f"http://127.0.0.1:{port}/", given.burst)
    found.psql(_BARE_TABLES)
    bare = pgbench(found, _BARE, given.seconds)
    both = 1 / (1 / bare + 1 / posts)
    rows = [
        ("ours, from report to receiver", burst, burst / both),
        ("pgbench, the bare writes", bare, bare / both),
        ("a client, the bare posts", posts, posts / both),
        ("bare writes and posts, one after the other", both, 1.0),
    ]
    print("\n" + table(("burst", "deliveries/s", "ratio"), rows), flush=True)


async def _bare_posts(url: str, count: int) -> float:
    """Return the posts a second to the same receiver that another process makes, which does nothing else."""
    command = [sys.executable, "-m", "bench.deliveries.posts", url, str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(120):
        told, _ = await process.communicate()
    return float(told)


async def _burst(bench: Bench, count: int) -> float:
    """Report many calls at once; return deliveries a second until the last has arrived."""
    bench.forget()
    told = []
    first, begun_at = time.time_ns(), time.perf_counter()
    for number in range(first, first + count // 2):
        invited, answered, ended = _events(number, f"acct_{number % _ACCOUNTS}", _call_id(number))
        told += [bench.tell("call.started", invited), bench.tell("call.ended", answered, ended)]
    await asyncio.gather(*told)
    await bench.all_arrived(120)
    assert len(bench.arrived) == len(bench.sent), (len(bench.arrived), len(bench.sent))
    return len(bench.arrived) / (max(bench.arrived.values()) - begun_at)


async def _subscribe(found: Cluster, ours: str, session: aiohttp.ClientSession, url: str) -> None:
    for n in range(_ACCOUNTS):
        secret = f"vox_sk_live_deliveries{n}"
        found.psql(_ADD, account=f"acct_{n}")
        digest = hashlib.sha256(secret.encode()).digest()
        found.psql(_ADD_KEY, id=f"key_{n}", account=f"acct_{n}", digest=digest)
        body = {"url": url, "events": ["call.started", "call.ended"], "secret": "bench"}
        headers = {"Authorization": f"Bearer {secret}"}
        async with session.post(f"{ours}/v1/webhooks", json=body, headers=headers) as answer:
            assert answer.status == 201, await answer.text()


def main() -> None:
    """Run every step and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.deliveries", description=__doc__)
    parser.add_argument("--rates", type=lambda text: [int(rate) for rate in text.split(",")], default=[20, 50, 100])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--burst", type=int, default=2000)
    given = parser.parse_args()
    print(machine(), flush=True)
    with TemporaryDirectory() as work:
        folder = Path(work)
        folder.chmod(0o755)
        with cluster(folder / "database") as found, api(found, folder / "api") as ours:
            asyncio.run(_measure(found, ours, folder, given))


if __name__ == "__main__":
    main()
