"""Totals of events and deliveries are those that counting would find, whatever came and went at once."""

import asyncio
import random
from datetime import timedelta

import sqlalchemy as sa
from voxpria_server.kit.clock import utc_now
from voxpria_server.webhooks import outbox, queries

from server.tests.test_webhook_delivery import subscribe

TYPES = ("call.started", "call.ended", "call.failed")
COUNT = "SELECT count(*) FROM events WHERE account_id = 'acct_sandbox' AND mode = 'test' AND NOT is_test"


async def counted(api, statement: str) -> int:
    async with api.database.read() as conn:
        return (await conn.execute(sa.text(statement))).scalar_one()


async def total(client, path: str) -> int:
    return (await client.get(path)).json()["pagination"]["total"]


async def test_totals_are_those_of_counting(api, client):
    hooks = [await subscribe(client, "http://127.0.0.1:9/", events) for events in (["call.ended"], TYPES)]
    chance = random.Random(2)

    async def emit() -> None:
        for _ in range(6):
            async with api.database.transaction() as conn:
                for _ in range(chance.randint(1, 5)):
                    await outbox.emit(conn, "acct_sandbox", "test", chance.choice(TYPES), {"n": 1})
                if chance.random() < 0.3:
                    await conn.rollback()

    async def purge() -> None:
        for _ in range(4):
            async with api.database.transaction() as conn:
                await conn.execute(
                    sa.text("DELETE FROM events WHERE id IN (SELECT id FROM events LIMIT 3 FOR UPDATE SKIP LOCKED)")
                )
            await asyncio.sleep(0.02)

    await asyncio.gather(*(emit() for _ in range(6)), purge())
    await client.post(f"/v1/webhooks/{hooks[0]}/test")
    assert await total(client, "/v1/events") == await counted(api, COUNT) > 0
    for kind in TYPES:
        assert await total(client, f"/v1/events?type={kind}") == await counted(api, f"{COUNT} AND type = '{kind}'")
    for hook in hooks:
        statement = f"SELECT count(*) FROM webhook_deliveries WHERE webhook_id = '{hook}'"
        assert await total(client, f"/v1/webhooks/{hook}/deliveries") == await counted(api, statement) > 0
    await client.delete(f"/v1/webhooks/{hooks[1]}")
    assert await counted(api, f"SELECT sum(n) FROM tallies WHERE of = '{hooks[1]}'") == 0
    async with api.database.transaction() as conn:
        await queries.delete_tallies(conn, (utc_now() - timedelta(days=30)).date())
    assert await counted(api, f"SELECT count(*) FROM tallies WHERE of = '{hooks[1]}'") == 0
    assert await total(client, "/v1/events") == await counted(api, COUNT)
    live = await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))
    assert await total(live, "/v1/events") == 0


async def test_events_that_are_listed_no_more_are_counted_no_more(api, client):
    async with api.database.transaction() as conn:
        for kind in ("call.ended", "call.started"):
            await outbox.emit(conn, "acct_sandbox", "test", kind, {"n": 1})
        await conn.execute(
            sa.text("UPDATE events SET created_at = now() - interval '32 days' WHERE type = 'call.started'")
        )
    listed = (await client.get("/v1/events")).json()
    assert ([event["event"] for event in listed["data"]], listed["pagination"]["total"]) == (["call.ended"], 1)
    async with api.database.transaction() as conn:
        assert await queries.delete_events(conn, utc_now() - timedelta(days=30), 10) == 1
    assert await counted(api, "SELECT sum(n) FROM tallies WHERE of = 'acct_sandbox test'") == 1
