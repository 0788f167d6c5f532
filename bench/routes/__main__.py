"""Routes at scale: a database of many numbers, the whole snapshot and one change of it, measured on the way to an edge.

    python -m bench.routes --numbers 1000000

Run from the repository's root, with the packages that the tests need. What the control plane does and what the edge
does are timed apart; the edge takes its lines over HTTP from another process, and while it does, a task of its event
loop that wants to run each millisecond tells how long a call would have waited.
"""

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec
import sqlalchemy as sa
from pydantic import SecretStr
from voxpria_edge.control_plane import ControlPlane
from voxpria_edge.routes.route_store import RouteStore
from voxpria_routing import snapshot as wire
from voxpria_routing.decide import decide
from voxpria_routing.decision import Invite
from voxpria_routing.table import Table
from voxpria_server.kit.db import Database
from voxpria_server.kit.sealing import load_sealer
from voxpria_server.migrations import migrate
from voxpria_server.routing import snapshot
from voxpria_server.settings import Settings

from server.tests.conftest import make_cluster, write_secrets
from tests.ports import free_ports

FILL = """
INSERT INTO phone_numbers (id, account_id, mode, e164, trunk_id, config, status, is_routed, needs_reprovision,
                           created_at, updated_at)
SELECT 'phone_' || lpad(i::text, 26, '0'), 'acct_sandbox', 'live', '+1' || (2000000000 + i), 'trunk_' || (i % 100),
       '{"first_message": "Hello!", "max_duration": 3600, "language": "en"}', 'active', true, false, now(), now()
FROM generate_series(1, :numbers) AS i
"""
TRUNK = """
INSERT INTO trunks (id, account_id, mode, name, provider, status, sealed_credentials, config, health_status,
                    created_at, updated_at)
VALUES (:id, 'acct_sandbox', 'live', :id, 'generic', 'active', :sealed, CAST(:config AS jsonb), 'unverified',
        now(), now())
"""

SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_get("/edge/v1/snapshot", lambda _: web.FileResponse(sys.argv[1]))
web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long it took."""
    begun = time.perf_counter()
    yield
    print(f"| {what} | {time.perf_counter() - begun:.3f} s |")


def memory_mb() -> float:
    """Return the memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def measure(numbers: int) -> None:
    """Fill a database, and take its routes to an edge."""
    with tempfile.TemporaryDirectory() as name, contextmanager(make_cluster)() as cluster:
        folder = Path(name)
        write_secrets(folder)
        migrate(cluster.url("postgres"))
        settings = Settings(data_dir=folder, database_url=SecretStr(cluster.url("postgres")))
        database = Database(cluster.url("postgres"))
        sealer = load_sealer(settings.master_key_file)
        await make_trunks(database, sealer)
        with timed("filling the database"):
            cluster.admin("SET session_replication_role = replica;" + FILL.replace(":numbers", str(numbers)))
        print(f"{numbers} numbers on 100 trunks\n\n| step | |\n|---|---|")
        lines = folder / "lines"
        before = memory_mb()
        with timed("control plane: whole snapshot, read and encoded"), lines.open("wb") as file:
            async with database.transaction() as conn:
                await conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
                async for line in snapshot.lines(conn, settings, sealer):
                    file.write(line)
        print(f"| its size | {lines.stat().st_size / 1e6:.0f} MB |")
        print(f"| control plane: memory that it took | {memory_mb() - before:.0f} MB |")
        await edge(database, settings, sealer, folder)
        await database.close()


async def make_trunks(database: Database, sealer: object) -> None:
    """Make 100 trunks."""
    config = msgspec.json.encode(
        {"server": "127.0.0.1", "port": 5060, "transport": "udp", "allowed_addresses": [], "is_open": False}
        | {"record": False}
    ).decode()
    async with database.transaction() as conn:
        await conn.exec_driver_sql("INSERT INTO accounts (id, name, created_at) VALUES ('acct_sandbox', 'A', now())")
        for i in range(100):
            sealed = sealer.seal(b"{}", f"trunk_{i}")  # type: ignore[attr-defined]
            await conn.execute(sa.text(TRUNK), {"id": f"trunk_{i}", "sealed": sealed, "config": config})


@asynccontextmanager
async def served(lines: Path) -> AsyncIterator[str]:
    """Serve the lines from another process, as an API would; give its URL."""
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, str(lines), str(port))
    try:
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def heard() -> AsyncIterator[None]:
    """Print how long a task that is ready had to wait, while the body ran on the same loop."""
    waits: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - due)

    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()
    waits.sort()
    p50, p99, longest = (1000 * waits[int(len(waits) * share)] for share in (0.5, 0.99, 1 - 1e-9))
    print(f"| a call meanwhile waits, p50, p99, longest | {p50:.1f}, {p99:.1f}, {longest:.1f} ms |")


async def edge(database: Database, settings: Settings, sealer: object, folder: Path) -> None:
    """Do what an edge does with the whole, and then with one change."""
    store = RouteStore(folder / "snapshot", "token")
    async with served(folder / "lines") as url, heard():
        control_plane = ControlPlane(url, "token", "edge_1")
        before = memory_mb()
        with timed("edge: whole snapshot, fetched and in force"):
            whole = await control_plane.snapshot(0)
        await control_plane.close()
        assert whole is not None
        table = Table(whole)
    print(f"| edge: memory of the routes | {memory_mb() - before:.0f} MB |")
    async with heard():
        with timed("edge: whole snapshot, sealed and on disk"):
            await asyncio.to_thread(store.put, whole)
    async with database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE phone_numbers SET is_routed = false WHERE e164 = '+12000000007'")
    with timed("one number changed: from the commit until the edge has it on disk and in force"):
        async with database.transaction() as conn:
            delta = await snapshot.build_delta(conn, settings, sealer, table.version)  # type: ignore[arg-type]
        assert delta is not None
        delta = msgspec.json.decode(msgspec.json.encode(delta), type=wire.Delta)
        store.add(delta)
        table.apply(delta)
    assert table.numbers["+12000000007"][0].disabled_reason is not None
    invite = Invite(request_user="+12000000008", from_user="+13038921234", source_address="203.0.113.1")
    begun = time.perf_counter()
    for _ in range(1000):
        decide(table, invite)
    print(f"| one decision | {(time.perf_counter() - begun) * 1000:.0f} us |")
    with timed("edge: start from its disk"):
        assert store.load().version == table.version


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, default=1_000_000)
    asyncio.run(measure(parser.parse_args().numbers))
