"""Many deliveries, several workers: whose turn it is, who waits, and that nothing is lost."""

import asyncio
import json
import random
import socket
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta

import sqlalchemy as sa
from standardwebhooks import Webhook
from voxpria_server.accounts import queries as accounts
from voxpria_server.accounts.service import STANDARD_PLAN
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.webhooks import courier, jobs, outbox, queries

from server.tests.receiver import Receiver
from server.tests.test_webhook_delivery import SECRET, deliveries, settled, subscribe, verified_by_node
from server.tests.workers import WorkerProcess


async def until(probe, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not (value := await probe()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)
    return value


async def one(database: Database, statement: str, **values):
    async with database.read() as conn:
        return (await conn.execute(sa.text(statement), values)).scalar_one()


async def add_webhook(database: Database, sealer, account: str, url: str) -> str:
    now, webhook_id = utc_now(), f"webhook_{account}"
    async with database.transaction() as conn:
        await accounts.add_if_missing(conn, account, account, STANDARD_PLAN, now)
        values = {"id": webhook_id, "account_id": account, "mode": "live", "url": url, "events": ["call.ended"]}
        sealed = sealer.seal(SECRET.encode(), webhook_id)
        more = {"sealed_secret": sealed, "status": "active", "created_at": now, "updated_at": now}
        await queries.add(conn, values | more)
    return webhook_id


async def emit(database: Database, account: str, *numbers: int) -> None:
    async with database.transaction() as conn:
        for number in numbers:
            await outbox.emit(conn, account, "live", "call.ended", {"n": number})


def numbers(receiver: Receiver) -> list[int]:
    return [json.loads(request.body)["data"]["n"] for request in receiver.received]


async def nothing_is_due(database: Database) -> bool:
    statement = "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending' AND next_attempt_at <= now()"
    return await one(database, statement) == 0


async def let_a_minute_pass(database: Database) -> None:
    """Move all that has been arranged a minute into the past."""
    async with database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhook_turns SET began_at = began_at - interval '1 minute'"))
        await conn.execute(
            sa.text(
                "UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - interval '1 minute',"
                " turn_at = turn_at - interval '1 minute' WHERE status = 'pending'"
            )
        )


async def test_a_minute_has_its_share_whatever_the_workers_and_the_rest_waits(settings, sealer, database_url, receiver):
    database = Database(database_url)
    for account in ("busy", "quiet"):
        await add_webhook(database, sealer, account, receiver.url)
    await emit(database, "busy", *range(55))
    with ExitStack() as stack:
        for _ in range(2):
            worker = WorkerProcess(settings, database_url, VOXPRIA_WEBHOOK_ATTEMPTS_PER_MINUTE="20")
            stack.callback(worker.kill)
        for minute in range(1, 4):
            expected = min(20 * minute, 55)
            await receiver.wait_for(expected + minute - 1, seconds=60)
            await until(lambda: nothing_is_due(database))
            assert len(receiver.received) == expected + minute - 1
            waiting = await one(database, "SELECT count(*) FROM webhook_deliveries WHERE status = 'pending'")
            assert waiting == 55 - expected
            await emit(database, "quiet", 1000 + minute)
            await receiver.wait_for(expected + minute, seconds=90)
            await let_a_minute_pass(database)
    await database.close()
    assert Counter(numbers(receiver)) == Counter([*range(55), 1001, 1002, 1003])


async def test_turns_are_exact_under_a_race(database, sealer):
    for account in ("acct_1", "acct_2"):
        await add_webhook(database, sealer, account, "http://127.0.0.1:9/")
        await emit(database, account, *range(45))
    chance, lease = random.Random(1), timedelta(seconds=30)
    found = await asyncio.gather(*(queries.claim_due(database, chance.randint(1, 4), lease, 10) for _ in range(60)))
    rest = await queries.claim_due(database, 100, lease, 10)
    claimed = [row for rows in (*found, rest) for row in rows if row["is_claimed"]]
    async with database.read() as conn:
        statement = "SELECT w.account_id, d.turn_at FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id"
        rows = (await conn.execute(sa.text(statement))).all()
    assert Counter(row["account_id"] for row in claimed) == {"acct_1": 10, "acct_2": 10}
    for account in ("acct_1", "acct_2"):
        minutes = Counter(row.turn_at for row in rows if row.account_id == account)
        begin = min(minutes)
        assert minutes == {begin + timedelta(minutes=n): min(10, 45 - 10 * n) for n in range(5)}


async def test_a_minute_that_was_not_used_is_gone(database, sealer):
    await add_webhook(database, sealer, "acct", "http://127.0.0.1:9/")

    async def claims() -> int:
        await emit(database, "acct", 0)
        return sum(row["is_claimed"] for row in await queries.claim_due(database, 10, timedelta(seconds=30), 2))

    assert await claims() == 1
    async with database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhook_turns SET began_at = began_at - interval '61 s'"))
    assert [await claims() for _ in range(3)] == [1, 1, 0]


async def test_a_claim_holds_until_its_lease_runs_out(database, sealer):
    await add_webhook(database, sealer, "acct", "http://127.0.0.1:9/")
    await emit(database, "acct", 0)

    async def claim(seconds: float) -> list[bool]:
        rows = await queries.claim_due(database, 10, timedelta(seconds=seconds), 100)
        return [row["is_claimed"] for row in rows]

    assert [await claim(30), await claim(30)] == [[True], []]
    async with database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhook_deliveries SET claimed_until = now() - interval '1 ms'"))
    assert await claim(30) == [True]


async def test_black_holes_delay_nobody_else_with_two_workers(settings, sealer, database_url, receiver):
    """Four accounts' servers take connections and never answer; a fifth account's deliveries arrive regardless."""
    database = Database(database_url)
    hole = socket.create_server(("127.0.0.1", 0), backlog=512)
    url = f"http://127.0.0.1:{hole.getsockname()[1]}/"
    for account in ("hole1", "hole2", "hole3", "hole4"):
        await add_webhook(database, sealer, account, url)
        await emit(database, account, *range(60))
    await add_webhook(database, sealer, "fine", receiver.url)
    with ExitStack() as stack:
        stack.callback(hole.close)
        for _ in range(2):
            stack.callback(WorkerProcess(settings, database_url).kill)
        statement = (
            "SELECT count(*) FROM webhook_deliveries"
            " WHERE status = 'pending' AND claimed_until IS NULL AND next_attempt_at > now()"
        )
        await until(lambda: one(database, statement))
        for number in range(10):
            await emit(database, "fine", number)
            await receiver.wait_for(number + 1, seconds=10)  # less than one attempt into the hole takes
        done = await one(database, "SELECT count(*) FROM webhook_deliveries WHERE status = 'succeeded'")
    await database.close()
    assert done <= 10
    assert Counter(numbers(receiver)) == Counter(range(10))


async def test_nothing_is_lost_however_often_workers_are_killed(settings, sealer, database_url, receiver):
    """Workers die at random moments while events are written; in the end each event has arrived."""
    database, chance = Database(database_url), random.Random(4)
    await add_webhook(database, sealer, "acct", receiver.url)
    receiver.answers = [200, 200, 500, 200, 200, 200, 503]
    for round_ in range(4):
        worker = WorkerProcess(settings, database_url, VOXPRIA_WEBHOOK_ATTEMPTS_PER_MINUTE="1000")
        await emit(database, "acct", *range(round_ * 15, round_ * 15 + 15))
        await receiver.wait_for(len(receiver.received) + 1, seconds=60)
        await asyncio.sleep(chance.uniform(0, 0.15))  # any moment will do
        worker.kill()
    last = WorkerProcess(settings, database_url, VOXPRIA_WEBHOOK_ATTEMPTS_PER_MINUTE="1000")
    try:
        await until(lambda: _all_settled(database), seconds=90)
    finally:
        last.kill()
    await database.close()
    assert set(numbers(receiver)) == set(range(60))


async def _all_settled(database: Database) -> bool:
    return await one(database, "SELECT count(*) FROM webhook_deliveries WHERE status <> 'succeeded'") == 0


async def test_a_rolled_secret_and_those_before_it_all_verify(client, receiver):
    old = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    webhook = await subscribe(client, receiver.url, secret=old)
    rolled = [(await client.post(f"/v1/webhooks/{webhook}/roll-secret")).json() for _ in range(2)]
    middle, new = (each["secret"] for each in rolled)
    assert rolled[0]["former_secret_expires_at"] is not None
    await client.post(f"/v1/webhooks/{webhook}/test")
    (request,) = await receiver.wait_for(1)
    for secret in (old, middle, new):
        assert Webhook(secret).verify(request.body, request.headers)
    signature = request.headers["x-voxpria-signature"]
    former = request.headers["x-voxpria-signature-former"].split(" ")
    assert verified_by_node(
        (request.body, signature, new),
        (request.body, former[0], middle),
        (request.body, former[1], old),
        (request.body, signature, middle),
    ) == [True, True, True, False]


async def test_each_former_secret_has_its_own_end_and_there_are_ten_at_most(api, client):
    webhook = await subscribe(client, "http://127.0.0.1:9/")
    roll = f"/v1/webhooks/{webhook}/roll-secret"
    answers = await asyncio.gather(*(client.post(roll) for _ in range(11)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 409: 1}
    (refused,) = (answer.json()["error"] for answer in answers if answer.status_code == 409)
    assert refused["code"] == "secret_limit_reached"
    assert refused["details"]["expires_at"] > utc_now().isoformat()
    assert await one(api.database, "SELECT cardinality(former_sealed_secrets) FROM webhooks") == 10
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhooks SET former_secrets_expire_at[10] = now() - interval '1 s'"))
    assert (await client.post(roll)).status_code == 200
    assert await one(api.database, "SELECT cardinality(former_sealed_secrets) FROM webhooks") == 10
    await client.patch(f"/v1/webhooks/{webhook}", json={"secret": "at once"})
    assert (await client.post(roll)).status_code == 200


async def test_the_former_secret_ends_after_its_day_or_with_a_change(api, client, receiver):
    webhook = await subscribe(client, receiver.url)
    own = await client.post(f"/v1/webhooks/{webhook}/roll-secret", json={"secret": "the next one"})
    assert "secret" not in own.json()
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhooks SET former_secrets_expire_at = ARRAY[now() - interval '1 s']"))
    await client.post(f"/v1/webhooks/{webhook}/test")
    await receiver.wait_for(1)
    await client.post(f"/v1/webhooks/{webhook}/roll-secret", json={"secret": "one more"})
    changed = (await client.patch(f"/v1/webhooks/{webhook}", json={"secret": "at once"})).json()
    assert changed["former_secret_expires_at"] is None
    await client.post(f"/v1/webhooks/{webhook}/test")
    first, second = await receiver.wait_for(2)
    assert "x-voxpria-signature-former" not in first.headers.keys() | second.headers.keys()
    given = [(r.body, r.headers["x-voxpria-signature"]) for r in (first, second)]
    assert verified_by_node((*given[0], "the next one"), (*given[1], "at once")) == [True, True]


async def test_one_delivery_is_sent_again(client, receiver):
    webhook = await subscribe(client, receiver.url)
    delivery = (await client.post(f"/v1/webhooks/{webhook}/test")).json()
    await settled(client, webhook)
    path = f"/v1/webhooks/{webhook}/deliveries"
    again = await client.post(f"{path}/{delivery['id']}/resend")
    assert (again.status_code, again.json()["event_id"]) == (202, delivery["event_id"])
    assert again.json()["id"] != delivery["id"]
    await settled(client, webhook, 2)
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert (await client.post(f"{path}/dlv_none/resend")).json()["error"]["code"] == "delivery_not_found"
    await client.patch(f"/v1/webhooks/{webhook}", json={"status": "disabled"})
    assert (await client.post(f"{path}/{delivery['id']}/resend")).json()["error"]["code"] == "webhook_disabled"


async def emit_here(api, *numbers: int) -> None:
    async with api.database.transaction() as conn:
        for number in numbers:
            await outbox.emit(conn, "acct_sandbox", "test", "call.ended", {"n": number})


async def test_what_never_arrived_is_recovered_once(api, client, receiver, monkeypatch):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0,))
    monkeypatch.setattr(jobs, "_RECOVER_AT_ONCE", 2)
    await emit_here(api, 0)
    webhook = await subscribe(client, receiver.url, ["call.ended"])
    since = utc_now()
    receiver.answers = [200, 500, 500]
    await emit_here(api, 1, 2, 3)
    await settled(client, webhook, 3)
    await client.patch(f"/v1/webhooks/{webhook}", json={"status": "disabled"})
    await emit_here(api, 4, 5)
    recover = f"/v1/webhooks/{webhook}/recover"
    body = {"since": since.isoformat()}
    assert (await client.post(recover, json=body)).json()["error"]["code"] == "webhook_disabled"
    await client.patch(f"/v1/webhooks/{webhook}", json={"status": "active"})
    answers = [await client.post(recover, json=body) for _ in range(2)]
    assert answers[0].status_code == 202
    assert answers[0].json()["events"] == 4
    await settled(client, webhook, 7)
    received = Counter(numbers(receiver))
    assert set(received) == {1, 2, 3, 4, 5}
    assert sorted(received.values()) == [1, 1, 1, 2, 2], "each of the failed ones once more, and nothing twice"
    for bad in ({}, {"since": "yesterday"}, {"since": 1767225600}):
        assert (await client.post(recover, json=bad)).status_code == 400
    for good in (f"{since:%Y-%m-%d}", f"{since:%Y-%m-%dT%H:%M:%S}"):
        assert (await client.post(recover, json={"since": good})).status_code == 202


async def test_a_webhook_that_fails_for_five_days_is_disabled_and_says_so(api, client, receiver, monkeypatch):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0,))
    receiver.answers = [500, 200, 500, 503]
    webhook = await subscribe(client, receiver.url, ["call.ended"])
    path = f"/v1/webhooks/{webhook}"
    await emit_here(api, 1)
    await settled(client, webhook, 1)
    assert (await client.get(path)).json()["failing_since"] is not None
    await emit_here(api, 2)
    await settled(client, webhook, 2)
    assert (await client.get(path)).json()["failing_since"] is None
    await emit_here(api, 3)
    await settled(client, webhook, 3)
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhooks SET failing_since = failing_since - interval '5 days'"))
    await emit_here(api, 4)
    await settled(client, webhook, 4)
    shown = (await client.get(path)).json()
    assert (shown["status"], shown["disabled_at"] is not None) == ("disabled", True)
    assert "5 days" in shown["disabled_reason"]
    assert "503" in shown["disabled_reason"]
    await emit_here(api, 5)
    assert len(await deliveries(client, webhook)) == 4
    again = (await client.patch(path, json={"status": "active"})).json()
    assert (again["status"], again["disabled_at"], again["disabled_reason"]) == ("active", None, None)
    assert again["failing_since"] is None
    await emit_here(api, 6)
    await settled(client, webhook, 5)
    assert numbers(receiver)[-1] == 6


async def test_a_retry_that_lies_far_off_waits_in_its_row_and_is_woken(api, client, receiver, monkeypatch):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0, 3600))
    receiver.answers = [500]
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")

    async def is_waiting():
        statement = "SELECT count(*) FROM webhook_deliveries WHERE attempts = 1 AND claimed_until IS NULL"
        return await one(api.database, statement) == 1

    await until(is_waiting)
    (delivery,) = await deliveries(client, webhook)
    assert (delivery["status"], delivery["next_attempt_at"] > (utc_now() + timedelta(minutes=50)).isoformat()) == (
        "pending",
        True,
    )
    await until(lambda: nothing_is_due(api.database))
    async with api.database.transaction() as conn:
        await conn.execute(sa.text("UPDATE webhook_deliveries SET next_attempt_at = now()"))
    (delivery,) = await settled(client, webhook)
    assert (delivery["status"], len(delivery["attempts"])) == ("succeeded", 2)


async def test_nobody_rolls_resends_or_recovers_what_is_another_accounts(api, client, receiver):
    webhook = await subscribe(client, receiver.url)
    other = await subscribe(client, receiver.url)
    delivery = (await client.post(f"/v1/webhooks/{webhook}/test")).json()["id"]
    await settled(client, webhook)
    assert (await client.post(f"/v1/webhooks/{other}/deliveries/{delivery}/resend")).status_code == 404
    for key in (await api.new_key(), await api.new_key(mode="live", account_id="acct_sandbox")):
        stranger = await api.client(key)
        since = {"since": utc_now().isoformat()}
        for tail, body in (("roll-secret", {}), ("recover", since), (f"deliveries/{delivery}/resend", {})):
            answer = await stranger.post(f"/v1/webhooks/{webhook}/{tail}", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webhook_not_found"), tail
    assert (await client.get(f"/v1/webhooks/{webhook}")).json()["former_secret_expires_at"] is None
