"""Keys: who gets in, with what right, from where, and until when."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
import pytest
import sqlalchemy as sa
from pydantic import SecretStr, ValidationError
from voxpria_server import api as public_api
from voxpria_server.accounts import service as account_rules
from voxpria_server.auth import keys
from voxpria_server.auth.route import KeyedRoute
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY, Permission
from voxpria_server.errors import ApiError
from voxpria_server.kit.clock import utc_now
from voxpria_server.main import create_app
from voxpria_server.settings import Settings

from server.tests.process import Process
from tests.ports import free_ports

UNKNOWN = "vox_sk_test_" + "0" * 64
AREAS = {
    "/v1/sip/": "trunks",
    "/v1/phone-numbers": "numbers",
    "/v1/agents": "agents",
    "/v1/calls": "calls",
    "/v1/webhooks": "webhooks",
    "/v1/events": "webhooks",
}
OF_NUMBERS = {"/v1/sip/trunks/{trunk_id}/reprovision-all"}
ONLY_LOOKS = {"/v1/sip/route-test"}
"""POSTs that change nothing."""
UNKEYED = {"/v1/recordings/{call_id}.mp3"}


def routes():
    """Every route of the public API, as (path, route)."""
    for context in public_api.v1.routes:
        yield from _flat(context, "/v1")


def _flat(route, prefix: str):
    inner = getattr(route, "original_router", None)
    if inner is None:
        yield prefix + route.path.removeprefix("/v1"), route
        return
    for child in inner.routes:
        yield from _flat(child, prefix)


def scope_of(route) -> str | None:
    return next((d.call.scope for d in route.dependant.dependencies if isinstance(d.call, Permission)), None)


def test_every_endpoint_asks_for_the_permission_of_its_area():
    seen = {}
    for path, route in routes():
        if path in UNKEYED:
            continue
        area = "numbers" if path in OF_NUMBERS else next(a for p, a in AREAS.items() if path.startswith(p))
        for method in route.methods:
            right = "read" if method in {"GET", "HEAD"} or path in ONLY_LOOKS else "write"
            seen[method, path] = scope_of(route)
            assert seen[method, path] == f"{area}:{right}", f"{method} {path}"
        assert isinstance(route, KeyedRoute), path
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "api_key_missing"),
        ("", "api_key_missing"),
        ("Bearer", "api_key_missing"),
        ("Bearer  ", "api_key_missing"),
        ("Basic dXNlcjpwYXNz", "api_key_missing"),
        (f"Bearer {UNKNOWN}", "invalid_api_key"),
        ("Bearer nonsense", "invalid_api_key"),
        (f"Bearer {DOCUMENTED_TEST_KEY}x", "invalid_api_key"),
        (f"Bearer {DOCUMENTED_TEST_KEY} x", "invalid_api_key"),
        ("Bearer vox_sk_live_abc123xyz789", "invalid_api_key"),
        ("Bearer vox_sk_test_\xe9", "invalid_api_key"),
        ("Bearer vox_sk_test_" + "a" * 6000, "invalid_api_key"),
        ("Bearer vox_sk_test_' OR 1=1 --", "invalid_api_key"),
    ],
)
async def test_who_is_not_known_gets_401(api, header, code):
    client = await api.client(None)
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = await client.get("/v1/agents", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "abc123" not in answer.text


async def test_a_key_is_256_random_bits_kept_as_a_hash(api):
    secret = await api.new_key(mode="live")
    assert secret.startswith("vox_sk_live_")
    assert len(bytes.fromhex(secret.removeprefix("vox_sk_live_"))) == 32
    async with api.database.read() as conn:
        row = (await conn.execute(sa.text("SELECT * FROM api_keys WHERE mode = 'live'"))).one()
    assert secret not in repr(row)
    assert row.hint == secret[-4:]


async def test_an_expired_key_is_refused(api):
    secret = await api.new_key(expires_at=utc_now() + timedelta(hours=1))
    client = await api.client(secret)
    assert (await client.get("/v1/agents")).status_code == 200
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE api_keys SET expires_at = now() WHERE expires_at IS NOT NULL"))
    answer = await client.get("/v1/agents")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_rolled_key_works_on_until_its_overlap_ends(api):
    async with api.database.transaction() as conn:
        account = await account_rules.create(conn, "A")
        old, old_secret = await keys.create(conn, account.id, "test", "CI", scopes=["agents:read"])
        new, new_secret = await keys.roll(conn, old.id, timedelta(hours=1))
    assert (new.name, new.scopes, new.mode) == (old.name, old.scopes, old.mode)
    assert old_secret != new_secret
    clients = [await api.client(secret) for secret in (old_secret, new_secret)]
    assert [(await client.get("/v1/agents")).status_code for client in clients] == [200, 200]
    assert [(await client.get("/v1/webhooks")).status_code for client in clients] == [403, 403]
    async with api.database.transaction() as conn:
        ends = (await keys.queries.find_key(conn, old.id)).expires_at
        await conn.execute(sa.text("UPDATE api_keys SET expires_at = now() WHERE id = :id"), {"id": old.id})
    assert abs(ends - utc_now() - timedelta(hours=1)) < timedelta(minutes=2)
    assert [(await client.get("/v1/agents")).status_code for client in clients] == [401, 200]
    async with api.database.transaction() as conn:
        with pytest.raises(ApiError, match="revoked or expired"):
            await keys.roll(conn, old.id, timedelta(hours=1))


async def test_an_overlap_never_lengthens_a_keys_life(api):
    async with api.database.transaction() as conn:
        account = await account_rules.create(conn, "A")
        until = utc_now() + timedelta(minutes=5)
        old, _ = await keys.create(conn, account.id, "test", "CI", expires_at=until)
        new, _ = await keys.roll(conn, old.id, timedelta(days=1))
        assert (await keys.queries.find_key(conn, old.id)).expires_at == new.expires_at == until


@pytest.mark.parametrize(
    ("networks", "client_address", "is_let_in"),
    [
        ([], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["203.0.113.9"], "203.0.113.9", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.9", True),
        (["2001:db8::/32", "10.0.0.0/8"], "2001:db8::1", True),
        (["2001:db8::/32", "10.0.0.0/8"], "10.200.0.1", True),
        (["2001:db8::/32", "10.0.0.0/8"], "2001:db9::1", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["0.0.0.0/0"], "not-an-address", False),
    ],
)
async def test_a_key_may_be_bound_to_addresses(api, networks, client_address, is_let_in):
    secret = await api.new_key(networks=networks)
    transport = httpx2.ASGITransport(app=api.app, client=(client_address, 4711))
    spoof = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://api.test", headers=spoof) as client:
        answer = await client.get("/v1/agents")
    if is_let_in:
        assert answer.status_code == 200
        return
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")
    async with api.database.read() as conn:  # a thief elsewhere uses up nothing of the account's
        assert (await conn.execute(sa.text("SELECT count(*) FROM rate_windows"))).scalar_one() == 0


async def test_a_plan_without_sip_leaves_only_what_is_no_sip(api):
    async with api.database.transaction() as conn:
        limits = {"requests_per_hour": 77, "imports_per_minute": None}
        await account_rules.set_plan(conn, "data-only", is_sip_enabled=False, **limits)
        account = await account_rules.create(conn, "A", "data-only")
    client = await api.client(await api.new_key(account_id=account.id))
    for path in ("/v1/sip/trunks", "/v1/phone-numbers", "/v1/calls", "/v1/agents"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "feature_not_enabled")
        assert answer.headers["X-RateLimit-Limit"] == "77"
    assert (await client.get("/v1/webhooks")).status_code == 200
    async with api.database.transaction() as conn:
        await account_rules.update(conn, account.id, name=None, plan_id="standard")
    assert (await client.get("/v1/calls")).status_code == 200


async def test_uses_are_noted_but_not_each_of_them(api):
    secret = await api.new_key()
    client = await api.client(secret)
    query = sa.text("SELECT last_used_at FROM api_keys WHERE hint = :hint")

    async def noted():
        async with api.database.read() as conn:
            return (await conn.execute(query, {"hint": secret[-4:]})).scalar_one()

    assert await noted() is None
    await client.get("/v1/agents")
    first = await noted()
    assert utc_now() - first < timedelta(minutes=1)
    await asyncio.gather(*(client.get("/v1/agents") for _ in range(10)))
    assert await noted() == first
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE api_keys SET last_used_at = now() - interval '2 min'"))
    await asyncio.gather(*(client.get("/v1/agents") for _ in range(10)))
    assert await noted() > first


@pytest.mark.parametrize(
    "host", ["api.sandbox.voxpria.com", "API.Sandbox.VoxPria.com:8443", "api.sandbox.voxpria.com."]
)
async def test_the_sandbox_host_refuses_live_keys(api, host):
    live, test = [await api.client(await api.new_key(mode=mode)) for mode in ("live", "test")]
    answer = await live.get("/v1/agents", headers={"Host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (await live.get("/v1/agents")).status_code == 200
    assert (await test.get("/v1/agents", headers={"Host": host})).status_code == 200


@asynccontextmanager
async def app_with(settings: Settings, **changes):
    app = create_app(settings.model_copy(update=changes))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://api.test") as client,
    ):
        yield app, client


async def test_the_documented_key_never_works_without_the_sandbox(settings):
    headers = {"Authorization": f"Bearer {DOCUMENTED_TEST_KEY}"}
    async with app_with(settings) as (_, client):
        assert (await client.get("/v1/agents", headers=headers)).status_code == 200
    async with app_with(settings, sandbox=False) as (_, client):  # on the same data
        answer = await client.get("/v1/agents", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_server_may_be_a_sandbox_as_a_whole(settings):
    async with app_with(settings, sandbox_hosts="*") as (app, client):
        async with app.state.database.transaction() as conn:
            account = await account_rules.create(conn, "A")
            _, secret = await keys.create(conn, account.id, "live", "Live")
        answer = await client.get("/v1/agents", headers={"Authorization": f"Bearer {secret}"})
        assert answer.status_code == 401


@pytest.mark.unit
def test_proxies_are_named_by_address():
    assert Settings(trusted_proxies="10.0.0.0/8, ::1").trusted_proxies
    for bad in ("*", "localhost", "10.0.0.1/8"):
        with pytest.raises(ValidationError):
            Settings(trusted_proxies=bad)


class Admin:
    """`python -m voxpria_server.admin` on a database."""

    def __init__(self, url: str) -> None:
        self._environment = {"PATH": os.environ["PATH"], "VOXPRIA_DATABASE_URL": url}

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "voxpria_server.admin", "--json", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60, check=False)

    def __call__(self, *arguments: str) -> list[dict]:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(1200)
def test_the_command_manages_everything(database_url):
    admin = Admin(database_url)
    (account,) = admin("accounts", "create", "Ümläut & Söhne")
    assert (account["name"], account["plan_id"]) == ("Ümläut & Söhne", "standard")
    admin("plans", "set", "basic", "--no-sip", "--requests-per-hour", "10")
    (account,) = admin("accounts", "update", account["id"], "--plan", "basic")
    assert account["plan_id"] == "basic"
    assert [plan["id"] for plan in admin("plans", "list")] == ["basic", "standard"]
    assert account in admin("accounts", "list")
    (member,) = admin("members", "add", account["id"], "Ada@Example.com", "--role", "admin")
    assert member["email"] == "ada@example.com"
    assert admin("members", "list", account["id"]) == [member]
    options = ("--scope", "calls:read", "--allow", "192.0.2.0/24", "--allow", "2001:db8::1", "--expires-in-days", "1")
    (key,) = admin("keys", "create", account["id"], "--name", "CI", "--mode", "live", *options)
    assert key["secret"].startswith("vox_sk_live_")
    assert (key["scopes"], key["allowed_networks"]) == (["calls:read"], ["192.0.2.0/24", "2001:db8::1/128"])
    (renewed,) = admin("routes", "renew")
    assert renewed["version"] > 1_000_000_000
    (rolled,) = admin("keys", "roll", key["id"], "--overlap-hours", "2")
    assert rolled["secret"] != key["secret"]
    listed = admin("keys", "list", account["id"])
    assert [row["id"] for row in listed] == [rolled["id"], key["id"]]
    assert not any("secret" in name for row in listed for name in row)
    (revoked,) = admin("keys", "revoke", key["id"])
    assert revoked["revoked_at"] is not None
    for wrong in (
        ("accounts", "create", ""),
        ("accounts", "update", "acct_none", "--name", "x"),
        ("keys", "create", "acct_none", "--name", "x"),
        ("keys", "create", account["id"], "--name", "x", "--scope", "calls:all"),
        ("keys", "create", account["id"], "--name", "x", "--allow", "10.0.0.1/8"),
        ("keys", "revoke", "key_none"),
        ("members", "add", account["id"], "ada@example.com"),
        ("members", "add", account["id"], "no address"),
        ("plans", "set", "Bad Name", "--sip"),
    ):
        done = admin.run(*wrong)
        assert done.returncode == 1, wrong
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr


def test_the_command_says_when_there_is_no_database(tmp_path):
    done = Admin(f"postgresql://x@/x?host={tmp_path}").run("accounts", "list")
    assert done.returncode == 1
    assert "is the server running" in done.stderr


@pytest.mark.timeout(1200)
def test_a_revoked_key_ends_at_once_on_every_process(settings, cluster, database_url):
    """And only a trusted proxy is believed where a request comes from."""
    port = free_ports(1)[0]
    processes = [
        Process(settings, database_url, VOXPRIA_TRUSTED_PROXIES="127.0.0.0/8"),
        Process(settings.model_copy(update={"database_url": SecretStr(database_url)}), database_url, http_port=port),
    ]
    try:
        for process in processes:
            process.until("/healthz", 200)
        admin = Admin(database_url)
        (account,) = admin("accounts", "create", "A")
        made = [admin("keys", "create", account["id"], "--name", str(n))[0] for n in range(2)]
        (bound,) = admin("keys", "create", account["id"], "--name", "bound", "--allow", "192.0.2.7")

        def codes(secret: str, **headers: str) -> list[int]:
            headers = {"Authorization": f"Bearer {secret}", **headers}
            return [httpx2.get(f"{p.url}/v1/agents", headers=headers, timeout=30).status_code for p in processes]

        for key in made:
            for _ in range(3):  # whatever could be cached is
                assert codes(key["secret"]) == [200, 200]
        for key in made:
            admin("keys", "revoke", key["id"])
            assert codes(key["secret"]) == [401, 401]
        assert codes(bound["secret"]) == [403, 403]
        assert codes(bound["secret"], **{"X-Forwarded-For": "192.0.2.7"}) == [200, 403]
        assert codes(bound["secret"], **{"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}) == [403, 403]
    finally:
        for process in processes:
            process.end()
