"""Measure the call log and its endpoints against their ceiling, and on few calls against many.

.venv/bin/python -m bench.api --folder FOLDER [--calls 10000000]; the README says what it does.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from bench.api.cluster import Cluster, cluster, fill, furnish, pgbench
from bench.api.server import Api, answers, api
from bench.helper import cpu_seconds, machine, percentile, running, table
from tests.ports import free_ports

_PYTHON = sys.executable
_KEY = "vox_sk_live_bench{}"
_ADD_KEY = """
INSERT INTO api_keys (id, account_id, mode, name, secret_sha256, scopes, created_at)
VALUES (%(id)s, %(account)s, 'live', 'bench', %(digest)s, %(scopes)s, now())
ON CONFLICT (id) DO UPDATE SET scopes = excluded.scopes
"""
_TRUNK = {
    "name": "Imports",
    "provider": "generic",
    "config": {"server": "127.0.0.9", "allowed_addresses": ["127.0.0.8"]},
}
_BARE_TABLE = "CREATE TABLE IF NOT EXISTS bare_numbers (id bigserial PRIMARY KEY, e164 text UNIQUE, body text)"
_BARE = "INSERT INTO bare_numbers (e164, body) VALUES (gen_random_uuid()::text, repeat('x', 200));\n"
_WRITES = """
DROP SEQUENCE IF EXISTS bare_import;
CREATE SEQUENCE bare_import START 5000000;
CREATE OR REPLACE FUNCTION bare_import(most int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO rate_windows AS held (account_id, mode, kind, used, resets_at)
    VALUES ('acct_big', 'live', 'imports', most, now() + interval '1 min')
    ON CONFLICT (account_id, mode, kind) DO UPDATE SET used = held.used + excluded.used;
    WITH added AS (
        INSERT INTO phone_numbers (id, account_id, mode, e164, trunk_id, config, status, is_routed, needs_reprovision,
            created_at, updated_at)
        SELECT 'phone_' || gen_random_uuid(), 'acct_big', 'live', '+1303' || nextval('bare_import'), 'trunk_bench_01',
            '{}', 'provisioning', false, false, now(), now()
        FROM generate_series(1, most) RETURNING id
    )
    INSERT INTO procrastinate_jobs (queue_name, task_name, args, scheduled_at)
    SELECT 'provisioning', 'numbers:route', jsonb_build_object('number_ids', jsonb_agg(id)), now() + interval '1 day'
    FROM added;
END $$
"""
"""What an import can't be without, in our own tables: its count, the numbers, and a job (due when all is over)."""

_SCOPES = [
    "agents:read",
    "calls:read",
    "webhooks:read",
    "webhooks:write",
    "numbers:read",
    "numbers:write",
    "trunks:read",
    "trunks:write",
]
Request = Callable[[aiohttp.ClientSession], Awaitable[None]]


def main() -> None:
    """Run every step and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the database is, and stays")
    parser.add_argument("--calls", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    print(machine(), flush=True)
    with cluster(given.folder) as found, TemporaryDirectory() as work:
        found.psql("SELECT 1")
        with api(found, Path(work)) as ours:
            fill(found, given.calls)
            furnish(found)
            _forget_imports(found)
            _keys(found)
            with _ceiling(found, Path(work)) as ceiling:
                asyncio.run(_endpoints(found, given, ours, ceiling))
            asyncio.run(_pages(found, given, ours.url))
            _imports(found, given, ours)


@contextlib.contextmanager
def _ceiling(found: Cluster, work: Path) -> Iterator[Api]:
    (port,) = free_ports(1)
    command = [_PYTHON, "-m", "bench.api.ceiling", found.url, str(port)]
    with running(command, work / "ceiling.log") as process:
        url = f"http://127.0.0.1:{port}"
        asyncio.run(answers(f"{url}/v1/calls"))
        yield Api(url, process)


def _keys(found: Cluster) -> None:
    for account in ("acct_small", "acct_big"):
        secret = _KEY.format(account.removeprefix("acct_"))
        digest = hashlib.sha256(secret.encode()).digest()
        found.psql(_ADD_KEY, id=f"key_{account}", account=account, digest=digest, scopes=_SCOPES)


async def _endpoints(found: Cluster, given: argparse.Namespace, ours: Api, ceiling: Api) -> None:
    (one,) = found.psql("SELECT id FROM calls WHERE account_id = 'acct_big' AND mode = 'live' LIMIT 1 OFFSET 7")[0]
    key = {"Authorization": f"Bearer {_KEY.format('big')}"}
    rows = []
    for name, path in (
        ("list calls, page 1", "/v1/calls"),
        ("list calls, page 9,000", "/v1/calls?page=9000"),
        ("get a call", f"/v1/calls/{one}"),
        ("list numbers", "/v1/phone-numbers"),
        ("get a number", "/v1/phone-numbers/phone_bench_0001"),
        ("list trunks", "/v1/sip/trunks"),
        ("get a trunk", "/v1/sip/trunks/trunk_bench_01"),
        ("list agents", "/v1/agents"),
        ("get an agent", "/v1/agents/agent_bench_01"),
        ("list webhooks", "/v1/webhooks"),
        ("get a webhook", "/v1/webhooks/webhook_bench_01"),
        ("list events", "/v1/events"),
        ("list deliveries", "/v1/webhooks/webhook_bench_01/deliveries"),
    ):
        await _rate(ours.url + path, key, given, 1.0), await _rate(ceiling.url + path, {}, given, 1.0)
        rates: dict[str, list[float]] = {"ours": [], "ceiling": []}
        used = {"ours": 0.0, "ceiling": 0.0}
        for _ in range(given.rounds):
            for way, served, headers in (("ours", ours, key), ("ceiling", ceiling, {})):
                before = cpu_seconds([served.process])
                rates[way].append(await _rate(served.url + path, headers, given, given.seconds))
                used[way] += (cpu_seconds([served.process]) - before) / (rates[way][-1] * given.seconds)
        mine, theirs = percentile(rates["ours"], 50), percentile(rates["ceiling"], 50)
        cpu = [1000 * used[way] / given.rounds for way in ("ours", "ceiling")]
        rows.append((name, mine, theirs, mine / theirs, *cpu))
    headings = ("endpoint", "ours, requests/s", "ceiling", "ratio", "CPU ms a request, ours", "ceiling")
    print("\n" + table(headings, rows), flush=True)


async def _pages(found: Cluster, given: argparse.Namespace, ours: str) -> None:
    big = {"Authorization": f"Bearer {_KEY.format('big')}"}
    small = {"Authorization": f"Bearer {_KEY.format('small')}"}
    last = given.calls // 20
    pages = [
        ("page 1", "", ""),
        ("the middle page", f"page={10_000 // 40}", f"page={last // 2}"),
        ("the last page", f"page={10_000 // 20}", f"page={last}"),
        ("status=canceled (1 in 10,000)", "status=canceled", "status=canceled"),
        ("direction=outbound, page 20", "direction=outbound&page=20", "direction=outbound&page=20"),
        ("phone_number", "phone_number=%2B12125550007", "phone_number=%2B12125550007"),
        ("phone_number and status", *["phone_number=%2B12125550007&status=busy"] * 2),
        ("dates, bare", *["start_date=2025-03-03&end_date=2025-06-05"] * 2),
        ("dates, not on the hour", *["start_date=2025-03-03T10:17:31Z&end_date=2025-06-05T04:41:00Z"] * 2),
        ("starting_after", *(f"starting_after={_middle(found, account)}" for account in ("acct_small", "acct_big"))),
    ]
    rows = []
    for name, of_small, of_big in pages:
        few, many = await _medians((f"{ours}/v1/calls?{of_small}", small), (f"{ours}/v1/calls?{of_big}", big))
        rows.append((name, few, many, many / few))
    print("\n" + table(("list", "10 thousand calls, ms", f"{given.calls:,} calls, ms", "ratio"), rows), flush=True)


_MIDDLE = (
    "SELECT id FROM calls WHERE account_id = %(account)s AND started_at > '2025-05-05' ORDER BY started_at LIMIT 1"
)


def _middle(found: Cluster, account: str) -> object:
    return found.psql(_MIDDLE, account=account)[0][0]


async def _rate(url: str, headers: dict[str, str], given: argparse.Namespace, seconds: float) -> float:
    """Return the requests a second that connections get answered that ask again and again."""
    count = 0
    until = time.monotonic() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while time.monotonic() < until:
            async with session.get(url) as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            count += 1

    async with aiohttp.ClientSession(headers=headers) as session:
        began_at = time.monotonic()
        await asyncio.gather(*(ask(session) for _ in range(given.connections)))
        return count / (time.monotonic() - began_at)


async def _medians(*asked: tuple[str, dict[str, str]], times: int = 150) -> list[float]:
    """Return the median of each, one request at a time, in turns, in ms."""
    taken: list[list[float]] = [[] for _ in asked]
    async with aiohttp.ClientSession() as session:
        for n in range(times):
            for (url, headers), found in zip(asked, taken, strict=True):
                began_at = time.perf_counter()
                async with session.get(url, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                if n >= 20:
                    found.append((time.perf_counter() - began_at) * 1000)
    return [percentile(each, 50) for each in taken]


def _imports(found: Cluster, given: argparse.Namespace, ours: Api) -> None:
    _forget_imports(found)
    one, many = asyncio.run(_import(given, ours.url))
    _forget_imports(found)
    found.psql(_BARE_TABLE)
    found.psql(_WRITES)
    bare = pgbench(found, _BARE, given.seconds)
    writes, of_many = (pgbench(found, f"SELECT bare_import({n});", given.seconds) * n for n in (1, 1000))
    _forget_imports(found)
    rows = [
        ("import, one number a request", one, one / writes),
        ("pgbench, the same writes", writes, 1.0),
        ("bulk-import, 1000 a request", many, many / of_many),
        ("pgbench, the same writes, 1000 a transaction", of_many, 1.0),
        ("pgbench, one bare row a transaction", bare, bare / writes),
    ]
    print("\n" + table(("import", "numbers/s", "ratio"), rows), flush=True)


def _forget_imports(found: Cluster) -> None:
    """Remove what was imported, and the work that it made."""
    found.psql("DELETE FROM procrastinate_jobs WHERE status = 'todo'")
    found.psql("DELETE FROM phone_numbers WHERE e164 LIKE '+1303%%' AND account_id = %(id)s", id="acct_big")
    found.psql("DELETE FROM trunks WHERE name = %(name)s", name=_TRUNK["name"])


async def _import(given: argparse.Namespace, ours: str) -> tuple[float, float]:
    """Return how many numbers a second an account imports: one a request on several connections, and in bulk."""
    headers = {"Authorization": f"Bearer {_KEY.format('big')}"}
    numbers = (f"+1303{n}" for n in itertools.count(2_000_000))
    count, until, trunk = 0, 0.0, {"trunk_id": ""}

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while time.monotonic() < until:
            await _post(session, f"{ours}/v1/phone-numbers/import", {"phone_number": next(numbers), **trunk})
            count += 1

    async with aiohttp.ClientSession(headers=headers) as session:
        trunk["trunk_id"] = str((await _post(session, f"{ours}/v1/sip/trunks", _TRUNK))["id"])
        until = time.monotonic() + given.seconds
        await asyncio.gather(*(work(session) for _ in range(given.connections)))
        one = count / (time.monotonic() - until + given.seconds)
        rows = [{"phone_number": next(numbers)} for _ in range(1000)]
        began_at = time.monotonic()
        await _post(session, f"{ours}/v1/phone-numbers/bulk-import", {"numbers": rows, **trunk})
        return one, 1000 / (time.monotonic() - began_at)


async def _post(session: aiohttp.ClientSession, url: str, body: Mapping[str, object]) -> dict[str, object]:
    async with session.post(url, json=body) as answer:
        assert answer.status in {200, 201}, await answer.text()
        said: dict[str, object] = await answer.json()
    assert said.get("success") is not False, said
    return said


if __name__ == "__main__":
    main()
