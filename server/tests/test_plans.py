"""What a plan says: of calls to the edges, of attempts to the deliveries, and of what a number can do."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from voxpria_routing.snapshot import Limits
from voxpria_server.accounts import service as account_rules
from voxpria_server.kit.clock import iso, utc_now

from server.tests.test_route_changes import Follower

ACCOUNT = "acct_sandbox"
NOWHERE = {"server": "127.0.0.1", "port": 9}
CARRIER = {"name": "Carrier", "provider": "generic", "credentials": {}, "config": NOWHERE}
ELEVENLABS = {
    "name": "ElevenLabs",
    "provider": "elevenlabs",
    "credentials": {"username": "u", "password": "p"},
    "config": NOWHERE | {"transport": "udp"},
}


async def made(client, path: str, body: dict) -> str:
    answer = await client.post(f"/v1{path}", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def set_plan(api, **plan) -> None:
    async with api.database.transaction() as conn:
        await account_rules.set_plan(conn, "small", **{"is_sip_enabled": True} | plan)
        await account_rules.update(conn, ACCOUNT, name=None, plan_id="small")


async def test_edges_are_told_of_a_plans_limits_of_calls_at_once(api, client):
    follower = Follower(api)
    await follower.start()
    assert follower.table.limits_of(ACCOUNT, "test")[1] == Limits()
    await set_plan(api, max_concurrent_calls=2, max_calls_per_second=0.5)
    before = follower.table.version
    await follower.follow()
    assert follower.table.version > before
    limits = Limits(max_concurrent_calls=2, max_calls_per_second=0.5)
    assert [follower.table.limits_of(ACCOUNT, mode)[1] for mode in ("test", "live")] == [limits, limits]
    assert follower.table.limits_of("acct_other", "test")[1] == Limits()
    await set_plan(api, max_concurrent_calls=2, is_sip_enabled=False)
    await follower.follow()
    assert follower.table.limits_of(ACCOUNT, "test")[1].max_concurrent_calls == 0
    await set_plan(api)
    await follower.follow()
    assert follower.table.limits_of(ACCOUNT, "test")[1] == Limits()


async def test_what_settings_say_holds_where_the_plan_says_nothing(settings, api):
    api.app.state.settings = settings.model_copy(
        update={"account_max_concurrent_calls": 7, "account_max_calls_per_second": 3.0}
    )
    follower = Follower(api)
    await follower.start()
    await set_plan(api, max_calls_per_second=9.5)
    await follower.follow()
    wanted = Limits(max_concurrent_calls=7, max_calls_per_second=9.5)
    assert follower.table.limits_of(ACCOUNT, "live")[1] == wanted
    assert follower.table.limits_of("acct_other", "live")[1] == Limits(max_concurrent_calls=7, max_calls_per_second=3.0)


async def capabilities(client, phone_id: str) -> dict:
    """Those of a number in full, which are those in the list, but for one that only the former names."""
    full = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["capabilities"]
    rows = (await client.get("/v1/phone-numbers")).json()["data"]
    (listed,) = [row["capabilities"] for row in rows if row["id"] == phone_id]
    assert listed == {name: value for name, value in full.items() if name != "recordings"}
    return full


async def test_capabilities_follow_from_trunk_engine_and_plan(api, client):
    carrier = await made(client, "/sip/trunks", CARRIER)
    plain = await made(client, "/phone-numbers/import", {"phone_number": "+12125551230", "trunk_id": carrier})
    body = {"phone_number": "+12125551231", "trunk_id": carrier, "engine": "elevenlabs"}
    routed = await made(client, "/phone-numbers/import", body)
    way = {"campaigns": False, "recordings": True}
    assert await capabilities(client, plain) == {"inbound": True, "outbound": False} | way
    assert await capabilities(client, routed) == {"inbound": False, "outbound": False} | way  # to where?
    engine = await made(client, "/sip/trunks", ELEVENLABS)
    assert await capabilities(client, routed) == {"inbound": True, "outbound": True} | way
    direct = await made(client, "/phone-numbers/import", {"phone_number": "+12125551232", "trunk_id": engine})
    assert await capabilities(client, direct) == {"inbound": True, "outbound": False} | way  # no carrier to go out by
    await made(client, "/sip/trunks", ELEVENLABS | {"name": "Second"})
    assert await capabilities(client, routed) == {"inbound": False, "outbound": False} | way  # which of the two?
    await client.patch(f"/v1/phone-numbers/{routed}", json={"config": {"engine_trunk_id": engine}})
    assert await capabilities(client, routed) == {"inbound": True, "outbound": True} | way
    await client.patch(f"/v1/sip/trunks/{carrier}", json={"config": {"record": False}})
    assert not (await capabilities(client, routed))["recordings"]
    other = await api.client(await api.new_key())
    assert (await other.get("/v1/phone-numbers")).json()["data"] == []


async def test_another_accounts_trunks_give_no_capability(api, client):
    carrier = await made(client, "/sip/trunks", CARRIER)
    body = {"phone_number": "+12125551231", "trunk_id": carrier, "engine": "elevenlabs"}
    routed = await made(client, "/phone-numbers/import", body)
    await made(await api.client(await api.new_key()), "/sip/trunks", ELEVENLABS)
    await made(await api.client(await api.new_key(mode="live", account_id=ACCOUNT)), "/sip/trunks", ELEVENLABS)
    assert not (await capabilities(client, routed))["inbound"]


@pytest.mark.timeout(1200)
def test_the_operators_command_sets_all_limits(settings, database_url):
    command = [sys.executable, "-m", "voxpria_server.admin", "--json", "plans", "set", "small", "--no-sip"]
    limits = {
        "requests_per_hour": 5,
        "imports_per_minute": 6,
        "webhook_attempts_per_minute": 7,
        "max_concurrent_calls": 8,
        "max_calls_per_second": 0.25,
    }
    for name, value in limits.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    environment = {**os.environ, "VOXPRIA_DATABASE_URL": database_url, "VOXPRIA_DATA_DIR": str(settings.data_dir)}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(answer.stdout) == {"id": "small", "is_sip_enabled": False, **limits}
    refused = subprocess.run(
        [*command, "--max-concurrent-calls", "0"], env=environment, capture_output=True, check=False
    )
    assert refused.returncode != 0


async def test_a_plan_says_how_many_attempts_of_deliveries_are_made_a_minute(api, client, receiver):
    webhook = await made(client, "/webhooks", {"url": receiver.url, "events": ["call.ended"]})
    await set_plan(api, webhook_attempts_per_minute=3)
    for _ in range(5):
        assert (await client.post(f"/v1/webhooks/{webhook}/test")).is_success

    async def held_back() -> list[str]:
        rows = (await client.get(f"/v1/webhooks/{webhook}/deliveries")).json()["data"]
        ends = [
            row["status"] for row in rows if row["status"] == "succeeded" or row["next_attempt_at"] > iso(utc_now())
        ]
        return sorted(ends) if len(ends) == 5 else []

    async with asyncio.timeout(50):  # less than the minute, after which the others have their turn
        while not (ends := await held_back()):
            await asyncio.sleep(0.1)
    assert ends == ["pending"] * 2 + ["succeeded"] * 3
