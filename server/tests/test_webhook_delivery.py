"""Deliveries to a real HTTP server, by the real worker: signed, repeated, bounded, and never lost."""

import asyncio
import json
import shutil
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from aiohttp import web
from standardwebhooks import Webhook
from voxpria_server.auth.service import SANDBOX_ACCOUNT_ID, seed_sandbox
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.reference.openapi import document
from voxpria_server.webhooks import courier, outbox, queries
from voxpria_server.webhooks.courier import Courier
from voxpria_server.webhooks.sender import Outcome, Sender

from server.tests import receiver as receivers
from server.tests.contract import schema_validator
from server.tests.edge_client import Story, connect
from server.tests.receiver import Receiver
from server.tests.workers import WorkerProcess

SECRET = "a secret of the user's own"
SNIPPET = """
const crypto = require('crypto');
function verifyWebhook(payload, signature, secret) {
const hmac = crypto.createHmac('sha256', secret);
const digest = hmac.update(JSON.stringify(payload)).digest('hex');
return crypto.timingSafeEqual(
Buffer.from(signature),
Buffer.from(digest)
);
}
const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const verdicts = given.map(([body, signature, secret]) => verifyWebhook(JSON.parse(body), signature, secret));
process.stdout.write(JSON.stringify(verdicts));
"""
"""The reference's check (its quotes straightened), run as a receiver runs it."""


def verified_by_node(*given: tuple[bytes, str, str]) -> list[bool]:
    node = shutil.which("node")
    assert node, "node is a test dependency (apt-get install nodejs)"
    stdin = json.dumps([[body.decode(), signature, secret] for body, signature, secret in given])
    run = subprocess.run([node, "-e", SNIPPET], input=stdin, capture_output=True, text=True, timeout=30, check=True)
    return json.loads(run.stdout)


@pytest.fixture
def at_once(monkeypatch):
    """Retries without the waiting."""
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0, 0.01, 0.01, 0.01))


async def subscribe(client, url: str, events=("call.started", "call.ended", "call.failed"), secret=SECRET) -> str:
    body = {"url": url, "events": list(events), "secret": secret}
    answer = await client.post("/v1/webhooks", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def deliveries(client, webhook_id: str) -> list[dict]:
    return (await client.get(f"/v1/webhooks/{webhook_id}/deliveries?per_page=100")).json()["data"]


async def settled(client, webhook_id: str, count: int = 1, seconds: float = 90) -> list[dict]:
    """Return a webhook's deliveries once there are so many and all are over."""
    deadline = time.monotonic() + seconds
    while True:
        found = await deliveries(client, webhook_id)
        if len(found) >= count and all(delivery["status"] != "pending" for delivery in found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def test_a_call_is_told_and_the_references_snippet_verifies_it(api, client, receiver):
    webhook = await subscribe(client, receiver.url + "/hook")
    story = Story()
    await (await connect(api)).send(*story.completed(recording=True))
    received = await receiver.wait_for(2)
    by_event = {request.event: json.loads(request.body) for request in received}
    assert set(by_event) == {"call.started", "call.ended"}
    ended = by_event["call.ended"]
    assert set(ended) == {"event", "timestamp", "data", "id"}
    assert ended["timestamp"] == "2026-03-04T05:06:15Z"
    assert ended["data"]["recording_url"].split("?")[0].endswith(f"/v1/recordings/{story.id}.mp3")
    assert {name: ended["data"][name] for name in ("call_id", "direction", "status", "duration")} == {
        "call_id": story.id,
        "direction": "inbound",
        "status": "completed",
        "duration": 7,
    }
    signatures = [request.headers["x-voxpria-signature"] for request in received]
    given = [(request.body, signature, SECRET) for request, signature in zip(received, signatures, strict=True)]
    wrong = (received[0].body, signatures[0], "another secret")
    assert verified_by_node(*given, wrong) == [True, True, False]
    for request in received:
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == json.loads(request.body)["id"]
    assert {d["status"] for d in await settled(client, webhook, 2)} == {"succeeded"}


async def test_odd_texts_survive_nodes_round_trip(api, client, receiver):
    await subscribe(client, receiver.url, ["call.failed"])
    odd = Story(from_='"\\\u2028\u2029\x7f \U0001f600 </script> é', explanation={"summary": "x", "tried": []})
    await (await connect(api)).send(*odd.failed())
    (request,) = await receiver.wait_for(1)
    assert verified_by_node((request.body, request.headers["x-voxpria-signature"], SECRET)) == [True]


async def test_the_standard_webhooks_library_verifies_it_too(client, receiver):
    secret = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    webhook = await subscribe(client, receiver.url, secret=secret)
    await client.post(f"/v1/webhooks/{webhook}/test")
    (request,) = await receiver.wait_for(1)
    verified = Webhook(secret).verify(request.body, request.headers)
    assert (verified["event"], verified["data"]["test"]) == ("call.started", True)


async def test_a_test_event_goes_to_one_webhook_and_into_no_list(client, receiver):
    webhook, other = await subscribe(client, receiver.url + "/a"), await subscribe(client, receiver.url + "/b")
    answer = await client.post(f"/v1/webhooks/{webhook}/test", json={"event": "trunk.updated"})
    assert (answer.status_code, answer.json()["event"], answer.json()["status"]) == (202, "trunk.updated", "pending")
    (delivery,) = await settled(client, webhook)
    assert (delivery["id"], delivery["attempts"][0]["status_code"]) == (answer.json()["id"], 200)
    assert [request.path for request in receiver.received] == ["/a"]
    assert await deliveries(client, other) == []
    assert (await client.get("/v1/events")).json()["data"] == []
    bad = await client.post(f"/v1/webhooks/{webhook}/test", json={"event": "x"})
    assert bad.status_code == 400


@pytest.mark.parametrize("event", sorted(document()["webhooks"]))
async def test_a_test_event_has_all_that_a_real_one_has(client, receiver, event):
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test", json={"event": event})
    (request,) = await receiver.wait_for(1)
    body = document()["webhooks"][event]["post"]["requestBody"]["content"]["application/json"]
    assert [error.message for error in schema_validator(body["schema"]).iter_errors(json.loads(request.body))] == []


async def test_only_who_asked_for_it_is_told(api, client, receiver):
    await subscribe(client, receiver.url + "/ended", ["call.ended"])
    off = await subscribe(client, receiver.url + "/off")
    await client.patch(f"/v1/webhooks/{off}", json={"status": "disabled"})
    gone = await subscribe(client, receiver.url + "/gone")
    await client.delete(f"/v1/webhooks/{gone}")
    for key in (await api.new_key(), await api.new_key(mode="live", account_id=SANDBOX_ACCOUNT_ID)):
        await subscribe(await api.client(key), receiver.url + "/stranger")
    last = await subscribe(client, receiver.url + "/failed", ["call.failed"])
    edge = await connect(api)
    await edge.send(*Story().completed())
    await edge.send(*Story().failed())
    await receiver.wait_for(2)
    await settled(client, last)
    assert sorted(request.path for request in receiver.received) == ["/ended", "/failed"]


async def test_attempts_are_repeated_until_one_succeeds_and_all_are_shown(client, receiver, at_once):
    receiver.answers = [500, 404, 302]
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")
    (delivery,) = await settled(client, webhook)
    assert (delivery["status"], delivery["next_attempt_at"]) == ("succeeded", None)
    assert [(a["number"], a["status_code"], a["response"]) for a in delivery["attempts"]] == [
        (1, 500, "said 500"),
        (2, 404, "said 404"),
        (3, 302, "said 302"),
        (4, 200, "said 200"),
    ]
    bodies = {request.body for request in receiver.received}
    ids = {request.headers["webhook-id"] for request in receiver.received}
    assert (len(bodies), len(ids)) == (1, 1), "every attempt is the same message"


async def test_it_is_given_up_in_the_end(client, receiver, at_once):
    receiver.answers = [500] * 10
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")
    (delivery,) = await settled(client, webhook)
    assert (delivery["status"], len(delivery["attempts"]), len(receiver.received)) == ("failed", 4, 4)


async def test_the_schedule_is_the_contracts(api, client, receiver):
    assert courier.DELAYS_SECONDS == (0, 5, 300, 1800, 7200, 18000, 36000, 36000)
    receiver.answers = [503]
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")
    await receiver.wait_for(1)
    deadline = time.monotonic() + 60
    while not (delivery := (await deliveries(client, webhook))[0])["attempts"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    async with api.database.read() as conn:
        due_at = (await conn.execute(sa.text("SELECT next_attempt_at FROM webhook_deliveries"))).scalar_one()
    attempted_at = datetime.fromisoformat(delivery["attempts"][0]["at"])
    assert 4.5 <= (due_at - attempted_at).total_seconds() < 60
    assert delivery["status"] == "pending"
    assert delivery["next_attempt_at"] is not None


async def test_a_redirect_is_not_followed(client, receiver, at_once):
    async def elsewhere(request):
        raise web.HTTPFound(receiver.url + "/secret-inside")

    receiver.answers = [elsewhere]
    webhook = await subscribe(client, receiver.url + "/hook")
    await client.post(f"/v1/webhooks/{webhook}/test")
    (delivery,) = await settled(client, webhook)
    assert [a["status_code"] for a in delivery["attempts"]] == [302, 200]
    assert {request.path for request in receiver.received} == {"/hook"}


async def test_what_a_receiver_answers_is_bounded(client, receiver):
    async def chatter(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"\x00\xffblah" * 2000)
        return response

    receiver.answers = [chatter]
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")
    (delivery,) = await settled(client, webhook)
    assert (delivery["status"], len(delivery["attempts"][0]["response"])) == ("succeeded", 1024)


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:{closed}/", "No connection"),
        ("http://no-such-host.invalid/", "can't be resolved"),
        ("https://127.0.0.1:{port}/", "HTTP exchange|No connection"),
    ],
)
async def test_what_fails_says_how(client, receiver, monkeypatch, url, error):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0,))
    port = receiver.url.rsplit(":", 1)[1]
    webhook = await subscribe(client, url.format(port=port, closed=1))
    await client.post(f"/v1/webhooks/{webhook}/test")
    (delivery,) = await settled(client, webhook)
    (attempt,) = delivery["attempts"]
    assert (delivery["status"], attempt["status_code"]) == ("failed", None)
    assert any(text in attempt["error"] for text in error.split("|")), attempt


async def test_no_answer_in_time(client, receiver, monkeypatch):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0,))

    async def never(request):
        await asyncio.sleep(60)

    receiver.answers = [never]
    sender = Sender(allow_private=True)
    sender._client._timeout = sender._client._timeout.__class__(total=0.2)
    outcome = await sender.post(receiver.url, b"{}", {})
    await sender.close()
    assert outcome.error == "No answer within 15 s."
    assert 150 < outcome.duration_ms < 2000


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
async def test_the_guard_stands_at_the_socket(receiver, host):
    port = receiver.url.rsplit(":", 1)[1]
    sender = Sender(allow_private=False)
    try:
        outcome = await sender.post(f"http://{host}:{port}/", b"{}", {})
    finally:
        await sender.close()
    assert outcome.status_code is None
    assert receiver.received == []
    assert outcome.error in {
        "Not allowed: the address is private, local or reserved.",
        "Not a proper HTTP exchange: InvalidUrlClientError.",
    }


async def test_a_name_that_resolves_to_the_inside_is_refused_at_connect(receiver, monkeypatch):
    """DNS rebinding: the name was fine when the webhook was made, and means us when we connect."""
    port = int(receiver.url.rsplit(":", 1)[1])
    sender = Sender(allow_private=False)

    async def rebound(host, port, **_):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr(sender._client.connector, "_resolve_host", rebound)
    outcome = await sender.post(f"http://rebound.example.com:{port}/", b"{}", {})
    await sender.close()
    assert outcome.error == "Not allowed: the address is private, local or reserved."
    assert receiver.received == []


async def test_a_server_that_never_answers_holds_up_nobody_else(api, client, receiver):
    """More deliveries than there are workers hang at one server; another server gets its own at once."""
    hang = asyncio.Event()
    slow = Receiver()
    runner = await receivers.start(slow)

    async def never(request):
        await hang.wait()
        return web.Response()

    slow.answers = [never] * 200
    stuck = await subscribe(client, slow.url)
    for _ in range(70):
        await client.post(f"/v1/webhooks/{stuck}/test")
    await slow.wait_for(4)
    quick = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{quick}/test")
    try:
        await receiver.wait_for(1, seconds=6)
        assert len(slow.received) <= 8
    finally:
        hang.set()
        await runner.cleanup()


async def test_what_is_under_way_to_a_disabled_webhook_is_given_up(api, client, receiver, monkeypatch):
    monkeypatch.setattr(courier, "DELAYS_SECONDS", (0, 1.0))
    switched_off = asyncio.Event()

    async def fail_once_it_is_off(request):
        await switched_off.wait()
        return web.Response(status=500)

    receiver.answers = [fail_once_it_is_off]
    webhook = await subscribe(client, receiver.url, ["call.ended"])
    edge = await connect(api)
    await edge.send(*Story().completed())
    await receiver.wait_for(1)
    await client.patch(f"/v1/webhooks/{webhook}", json={"status": "disabled"})
    await edge.send(*Story().completed())
    switched_off.set()
    (delivery,) = await settled(client, webhook)
    assert (delivery["status"], len(delivery["attempts"]), len(receiver.received)) == ("failed", 1, 1)


async def test_an_attempt_is_written_down_once(api, client, receiver):
    """Two couriers may make the same attempt: after a lease that ran out nobody knows how far the first one came."""
    webhook = await subscribe(client, receiver.url)
    delivery = (await client.post(f"/v1/webhooks/{webhook}/test")).json()["id"]
    await settled(client, webhook)
    row = {"id": delivery, "webhook_id": webhook, "failing_since": None, "is_test": False}
    for number, id_ in ((1, delivery), (2, delivery), (1, "dlv_gone")):
        attempt = queries.Attempt(row | {"id": id_}, number, utc_now(), Outcome(5, 500), utc_now())
        assert await queries.record(api.database, [attempt], []) == []
    (shown,) = await deliveries(client, webhook)
    assert (shown["status"], [a["status_code"] for a in shown["attempts"]]) == ("succeeded", [200])
    assert len(receiver.received) == 1


async def test_what_a_process_leaves_is_anothers_at_once(settings, sealer, database_url, receiver):
    """A courier that is stopped gives back what it has not brought."""
    database = Database(database_url)
    await one_webhook(database, sealer, receiver.url)
    hang = asyncio.Event()

    async def never(request):
        await hang.wait()
        return web.Response()

    receiver.answers = [never]
    first, second = (Courier(database, sealer, Sender(allow_private=True), 100) for _ in range(2))
    first.start()
    async with database.transaction() as conn:
        await outbox.emit(conn, SANDBOX_ACCOUNT_ID, "test", "call.ended", {"call_id": "kept"})
    await receiver.wait_for(1)
    await first.stop()
    second.start()
    await receiver.wait_for(2, seconds=15)
    hang.set()
    await second.stop()
    await first._sender.close()
    await second._sender.close()
    await database.close()


async def one_webhook(database: Database, sealer, url: str) -> None:
    webhook_id, now = "webhook_1", utc_now()
    async with database.transaction() as conn:
        await seed_sandbox(conn)
        values = {"id": webhook_id, "account_id": SANDBOX_ACCOUNT_ID, "mode": "test", "url": url}
        sealed = sealer.seal(SECRET.encode(), webhook_id)
        row = {"events": ["call.ended"], "sealed_secret": sealed, "status": "active"}
        await queries.add(conn, values | row | {"created_at": now, "updated_at": now})


async def test_old_events_go_and_young_ones_stay(api, client, receiver):
    webhook = await subscribe(client, receiver.url)
    await client.post(f"/v1/webhooks/{webhook}/test")
    await settled(client, webhook)
    await (await connect(api)).send(*Story(datetime.now(UTC)).failed())
    await settled(client, webhook, 3)
    async with api.database.transaction() as conn:
        await conn.execute(
            sa.text("UPDATE events SET created_at = now() - interval '31 days' WHERE type = 'call.started'")
        )
        gone = await queries.delete_events(conn, utc_now() - timedelta(days=30), 1000)
    assert gone == 2
    assert [d["event"] for d in await deliveries(client, webhook)] == ["call.failed"]


async def test_a_delivery_outlives_its_worker(settings, sealer, database_url, receiver):
    """Written with no worker there; taken by one that is killed in the middle; brought by the next."""
    database = Database(database_url)
    await one_webhook(database, sealer, receiver.url)
    with suppress(ZeroDivisionError):
        async with database.transaction() as conn:
            await outbox.emit(conn, SANDBOX_ACCOUNT_ID, "test", "call.ended", {"call_id": "rolled back"})
            raise ZeroDivisionError
    async with database.transaction() as conn:
        await outbox.emit(conn, SANDBOX_ACCOUNT_ID, "test", "call.ended", {"call_id": "kept"})

    hang = asyncio.Event()

    async def never(request):
        await hang.wait()
        return web.Response()

    receiver.answers = [never]
    first = WorkerProcess(settings, database_url)
    try:
        await receiver.wait_for(1, seconds=240)
    finally:
        first.kill()
    second = WorkerProcess(settings, database_url)
    try:
        await receiver.wait_for(2, seconds=60)
        deadline = time.monotonic() + 60
        status = None
        while status != "succeeded" and time.monotonic() < deadline:
            async with database.read() as conn:
                status = (await conn.execute(sa.text("SELECT status FROM webhook_deliveries"))).scalar_one()
            await asyncio.sleep(0.05)
    finally:
        second.kill()
        hang.set()
    await database.close()
    assert status == "succeeded"
    assert [json.loads(request.body)["data"]["call_id"] for request in receiver.received] == ["kept", "kept"]
