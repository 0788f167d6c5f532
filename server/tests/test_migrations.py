"""A database of an older release goes up by itself and keeps what it has."""

import asyncio
import re
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg.rows import dict_row
from voxpria_server import migrations
from voxpria_server.auth.queries import count_requests
from voxpria_server.auth.service import hash_secret
from voxpria_server.kit.db import Database


def _up_to(url: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    config.attributes["url"] = url
    command.upgrade(config, revision)


def test_trunks_of_old_get_the_new_config(cluster):
    cluster.admin("CREATE DATABASE old_trunks")
    url = cluster.url("old_trunks")
    _up_to(url, "0003")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts VALUES ('acct_1', 'A', now())")
        connection.execute(
            "INSERT INTO trunks (id, account_id, mode, name, provider, status, sealed_credentials, config,"
            " health_status, created_at, updated_at) VALUES ('trunk_1', 'acct_1', 'live', 'T', 'generic', 'active',"
            """ '\\x00', '{"server": "sip.example.com", "port": 5070, "transport": "tcp", "record": true,"""
            """ "is_open": false, "allowed_addresses": []}', 'unverified', now(), now())"""
        )
    assert migrations.migrate(url)
    with psycopg.connect(url, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM trunks").fetchone()
    assert row["config"] == {
        "server": "sip.example.com",
        "port": 5070,
        "transport": "tcp",
        "record": True,
        "is_open": False,
        "allowed_addresses": [],
        "media_encryption": "allowed",
        "max_concurrent_calls": None,
        "max_calls_per_second": None,
        "register": False,
        "codecs": [],
        "failover_trunk_ids": [],
    }
    assert row["health_next_at"] is not None
    cluster.admin("DROP DATABASE old_trunks")


def test_accounts_and_keys_of_old_work_on(cluster):
    """From the first release's schema: nothing is lost, and what is new stands where it lets all through as before."""
    cluster.admin("CREATE DATABASE old_keys")
    url = cluster.url("old_keys")
    _up_to(url, "0002")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO accounts VALUES ('acct_1', 'A', now())")
        for mode in ("test", "live"):
            connection.execute(
                "INSERT INTO api_keys (id, account_id, mode, name, secret_sha256, scopes, created_at)"
                " VALUES (%s, 'acct_1', %s, 'CI', %s, '{calls:read}', now())",
                (f"key_{mode}", mode, hash_secret(f"vox_sk_{mode}_1")),
            )
    with psycopg.connect(url, row_factory=dict_row) as connection:
        before = connection.execute("SELECT * FROM api_keys ORDER BY id").fetchall()
    assert migrations.migrate(url)
    with psycopg.connect(url, row_factory=dict_row) as connection:
        after = connection.execute("SELECT * FROM api_keys ORDER BY id").fetchall()
        account = connection.execute("SELECT * FROM accounts").fetchone()
    assert [{name: row[name] for name in old} for old, row in zip(before, after, strict=True)] == before
    assert {name: after[0][name] for name in ("hint", "allowed_networks", "last_used_at")} == {
        "hint": "",
        "allowed_networks": [],
        "last_used_at": None,
    }
    assert (account["id"], account["plan_id"]) == ("acct_1", "standard")
    assert asyncio.run(_let_in(url, "vox_sk_live_1")) == ("acct_1", "live", True, 1)
    cluster.admin("DROP DATABASE old_keys")


async def _let_in(url: str, secret: str) -> tuple:
    database = Database(url)
    key = await count_requests(
        database, hash_secret(secret), 1, address=None, requests_per_hour=9, imports_per_minute=9, counts_imports=False
    )
    await database.close()
    return tuple(key[name] for name in ("account_id", "mode", "is_address_allowed", "used"))


def test_no_job_is_left_that_nothing_runs_any_more(cluster):
    cluster.admin("CREATE DATABASE old_jobs")
    url = cluster.url("old_jobs")
    _up_to(url, "0026")
    with psycopg.connect(url, autocommit=True) as connection:
        for task in ("status:look", "calls:sweep"):
            connection.execute(
                "SELECT procrastinate_defer_periodic_job_v2('maintenance', NULL, %s, %s, 0, '', 1, '{}')",
                (task, task),
            )
    assert migrations.migrate(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT task_name FROM procrastinate_jobs").fetchall() == [("calls:sweep",)]
        assert connection.execute("SELECT task_name FROM procrastinate_periodic_defers").fetchall() == [
            ("calls:sweep",)
        ]
    cluster.admin("DROP DATABASE old_jobs")


def test_a_former_secret_of_a_webhook_stays_for_its_day(cluster):
    cluster.admin("CREATE DATABASE old_webhooks")
    url = cluster.url("old_webhooks")
    _up_to(url, "0027")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO accounts (id, name, created_at, plan_id) VALUES ('acct_1', 'A', now(), 'standard')"
        )
        for name, former, hours in (("a", b"was", 5), ("b", b"was", -5), ("c", None, None)):
            connection.execute(
                "INSERT INTO webhooks (id, account_id, mode, url, events, sealed_secret, status, created_at,"
                " updated_at, previous_sealed_secret, previous_secret_expires_at) VALUES (%s, 'acct_1', 'live', 'https://x.example',"
                " '{call.ended}', 'is', 'active', now(), now(), %s, now() + %s * interval '1 hour')",
                (f"webhook_{name}", former, hours),
            )
    assert migrations.migrate(url)
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT sealed_secret, former_sealed_secrets, former_secrets_expire_at > ARRAY[now()]"
            " FROM webhooks ORDER BY id"
        ).fetchall()
    assert rows == [(b"is", [b"was"], True), (b"is", [], False), (b"is", [], False)]
    cluster.admin("DROP DATABASE old_webhooks")


@pytest.mark.unit
def test_the_chain_is_one_line():
    """Two branches that each add the next revision merge without a conflict, and break the chain all the same."""
    names = sorted(path.name for path in Path(migrations.__path__[0], "versions").glob("[0-9]*.py"))
    texts = [Path(migrations.__path__[0], "versions", name).read_text() for name in names]
    revisions = [re.search(r'^revision = "(.*)"$', text, re.M)[1] for text in texts]
    parents = [re.search(r"^down_revision = (.*)$", text, re.M)[1].strip('"') for text in texts]
    assert revisions == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert [name[:4] for name in names] == revisions
    assert parents == ["None", *revisions[:-1]]
