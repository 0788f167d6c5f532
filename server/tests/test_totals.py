"""Totals of numbers, trunks and agents are those that counting would find, and a page is found without its past."""

import asyncio
import itertools
import random

import sqlalchemy as sa

from server.tests.test_tallies import counted, total

STATUSES = ("provisioning", "active", "inactive")
ENGINES = (None, "elevenlabs", "openai")
OWNER = "account_id = 'acct_sandbox' AND mode = 'test'"
ADD_TRUNK = """
INSERT INTO trunks (id, account_id, mode, name, provider, status, sealed_credentials, config, health_status,
    health_next_at, created_at, updated_at)
VALUES (:id, 'acct_sandbox', :mode, :id, :provider, 'active', '', '{"server": "127.0.0.1"}', 'unverified',
    'infinity', now(), now())
"""
ADD_AGENT = """
INSERT INTO agents (id, account_id, mode, name, engine, created_at, updated_at)
VALUES (:id, 'acct_sandbox', :mode, 'A', 'openai', now(), now())
"""
ADD_NUMBER = """
INSERT INTO phone_numbers (id, account_id, mode, e164, trunk_id, engine, config, status, is_routed, needs_reprovision,
    created_at, updated_at)
VALUES (:id, 'acct_sandbox', :mode, :id, :trunk, :engine, '{}', :status, false, false, now(), now())
"""
CHANGE = """
UPDATE phone_numbers SET status = :status WHERE id IN
    (SELECT id FROM phone_numbers WHERE status <> :status ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED)
"""
REMOVE = (
    "DELETE FROM phone_numbers WHERE id IN (SELECT id FROM phone_numbers ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)"
)


async def _furnish(api) -> None:
    trunks = [("trunk_a", "test", "generic"), ("trunk_b", "test", "openai"), ("trunk_l", "live", "generic")]
    async with api.database.transaction() as conn:
        for trunk_id, mode, provider in trunks:
            await conn.execute(sa.text(ADD_TRUNK), {"id": trunk_id, "mode": mode, "provider": provider})
            await conn.execute(sa.text(ADD_AGENT), {"id": f"agent_{trunk_id}", "mode": mode})


async def test_totals_are_those_of_counting_for_every_filter(api, client):
    await _furnish(api)
    chance = random.Random(3)
    ids = itertools.count()

    async def come() -> None:
        for _ in range(5):
            async with api.database.transaction() as conn:
                for _ in range(chance.randint(1, 5)):
                    trunk = chance.choice(["trunk_a", "trunk_b", "trunk_l"])
                    values = {"id": f"phone_{next(ids):04}", "mode": "live" if trunk == "trunk_l" else "test"}
                    values |= {"trunk": trunk, "engine": chance.choice(ENGINES), "status": chance.choice(STATUSES)}
                    await conn.execute(sa.text(ADD_NUMBER), values)
                if chance.random() < 0.3:
                    await conn.rollback()

    async def change_and_go() -> None:
        for _ in range(5):
            async with api.database.transaction() as conn:
                await conn.execute(sa.text(CHANGE), {"status": chance.choice(STATUSES)})
                await conn.execute(sa.text(REMOVE))
            await asyncio.sleep(0)

    await asyncio.gather(*(come() for _ in range(5)), *(change_and_go() for _ in range(3)))
    filters = {
        "trunk_id": (None, "trunk_a", "trunk_b", "trunk_l", "trunk_none", "trunk_a active"),
        "status": (None, *STATUSES),
        "engine": ENGINES,
    }
    for values in itertools.product(*filters.values()):
        given = {name: value for name, value in zip(filters, values, strict=True) if value is not None}
        wanted = " AND ".join([OWNER, *(f"{name} = '{value}'" for name, value in given.items())])
        found = (await client.get("/v1/phone-numbers", params=given)).json()["pagination"]["total"]
        assert found == await counted(api, f"SELECT count(*) FROM phone_numbers WHERE {wanted}"), given
    assert await total(client, "/v1/phone-numbers") > 0
    listed = (await client.get("/v1/sip/trunks")).json()
    assert (listed["pagination"]["total"], await total(client, "/v1/sip/trunks?provider=openai")) == (2, 1)
    assert await total(client, "/v1/agents") == 2
    for trunk in listed["data"]:
        statement = f"SELECT count(*) FROM phone_numbers WHERE trunk_id = '{trunk['id']}'"
        assert trunk["phone_numbers_count"] == await counted(api, statement)
    for trunk in ("trunk_a", "trunk_b"):
        assert (await client.delete(f"/v1/sip/trunks/{trunk}?force=true")).status_code in {200, 204}
    assert await total(client, "/v1/phone-numbers") == await total(client, "/v1/sip/trunks") == 0
    assert await counted(api, "SELECT count(*) FROM tallies WHERE of LIKE 'numbers on trunk_a%'") == 0
    assert await counted(api, "SELECT count(*) FROM tallies WHERE of LIKE 'numbers on trunk_l%'") > 0
    live = await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))
    statement = "SELECT count(*) FROM phone_numbers WHERE account_id = 'acct_sandbox' AND mode = 'live'"
    assert await total(live, "/v1/phone-numbers") == await counted(api, statement)


async def test_pages_hold_every_number_once(api, client):
    await _furnish(api)
    async with api.database.transaction() as conn:
        for n in range(23):
            values = {"id": f"phone_{n:04}", "mode": "test", "trunk": "trunk_a", "engine": None, "status": "active"}
            await conn.execute(sa.text(ADD_NUMBER), values)
    seen = []
    for page in range(1, 6):
        seen += (await client.get(f"/v1/phone-numbers?per_page=5&page={page}&status=active")).json()["data"]
    assert [number["id"] for number in seen] == [f"phone_{n:04}" for n in reversed(range(23))]
    beyond = (await client.get("/v1/phone-numbers?per_page=5&page=9")).json()
    assert (beyond["data"], beyond["pagination"]["total"]) == ([], 23)
