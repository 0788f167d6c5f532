"""Webhooks as customers set them up."""

import pytest
import sqlalchemy as sa

URL = "https://your-app.com/webhooks/voxpria"
BODY = {"url": URL, "events": ["call.started", "call.ended"], "secret": "your_webhook_secret"}


async def create(client, **changes) -> dict:
    answer = await client.post("/v1/webhooks", json=BODY | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


def verdict(answer) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["details"].get("field")


async def test_create_as_in_the_reference(client):
    webhook = await create(client)
    assert webhook["id"].startswith("webhook_")
    assert {name: webhook[name] for name in ("url", "events", "status")} == {
        "url": URL,
        "events": ["call.started", "call.ended"],
        "status": "active",
    }
    assert "secret" not in webhook, "a secret of the user's own is never given back"


async def test_a_secret_that_we_make_is_shown_once(client):
    answer = await client.post("/v1/webhooks", json={"url": URL, "events": ["call.ended"]})
    webhook = answer.json()
    assert webhook["secret"].startswith("whsec_")
    assert "secret" not in (await client.get(f"/v1/webhooks/{webhook['id']}")).json()
    assert webhook["secret"] not in (await client.get("/v1/webhooks")).text


async def test_a_secret_is_sealed_at_rest(api, client):
    await create(client, secret="very-secret-indeed")
    async with api.database.read() as conn:
        (row,) = await conn.execute(sa.text("SELECT * FROM webhooks"))
    assert b"very-secret-indeed" not in repr(row).encode() + bytes(row.sealed_secret)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"url": None}, "missing_required_field", "url"),
        ({"events": None}, "missing_required_field", "events"),
        ({"events": []}, "invalid_parameter", "events"),
        ({"events": ["call.exploded"]}, "invalid_parameter", "events.0"),
        ({"events": "call.ended"}, "invalid_parameter", "events"),
        ({"url": "ftp://example.com/x"}, "invalid_parameter", "url"),
        ({"url": "https://"}, "invalid_parameter", "url"),
        ({"url": "https://user:pass@example.com/"}, "invalid_parameter", "url"),
        ({"url": "https://example.com/#x"}, "invalid_parameter", "url"),
        ({"url": "https://example.com:99999/"}, "invalid_parameter", "url"),
        ({"url": "https://exämple.com/"}, "invalid_parameter", "url"),
        ({"url": "https://example.com/a b"}, "invalid_parameter", "url"),
        ({"url": "https://[::1/"}, "invalid_parameter", "url"),
        ({"url": "https://example.com/" + "x" * 2048}, "invalid_parameter", "url"),
        ({"url": "http://2130706433/"}, "invalid_parameter", "url"),
        ({"url": "http://127.1/"}, "invalid_parameter", "url"),
        ({"url": "http://0x7f.0.0.0x1/"}, "invalid_parameter", "url"),
        ({"url": 7}, "invalid_parameter", "url"),
        ({"secret": ""}, "invalid_parameter", "secret"),
        ({"secret": "x" * 257}, "invalid_parameter", "secret"),
        ({"colour": "red"}, "invalid_parameter", "colour"),
    ],
)
async def test_what_can_not_be_created(client, change, code, field):
    body = {name: value for name, value in (BODY | change).items() if value is not None}
    assert verdict(await client.post("/v1/webhooks", json=body)) == (400, code, field)


async def test_a_bad_secret_is_not_echoed(client):
    answer = await client.post("/v1/webhooks", json=BODY | {"secret": "s3cret" * 60})
    assert "s3cret" not in answer.text


async def test_change_and_remove(client):
    webhook = await create(client)
    path = f"/v1/webhooks/{webhook['id']}"
    change = {"url": URL + "/2", "events": ["call.failed", "call.failed"], "secret": "new", "status": "disabled"}
    changed = (await client.patch(path, json=change)).json()
    assert (changed["url"], changed["events"], changed["status"]) == (URL + "/2", ["call.failed"], "disabled")
    assert (await client.get(path)).json() == changed
    assert verdict(await client.patch(path, json={"url": None})) == (400, "invalid_parameter", "url")
    assert verdict(await client.patch(path, json={"id": "x"})) == (400, "invalid_parameter", "id")
    assert (await client.delete(path)).json() == {"success": True, "message": "Webhook deleted successfully"}
    for method in ("GET", "PATCH", "DELETE"):
        body = {"json": {}} if method == "PATCH" else {}
        assert verdict(await client.request(method, path, **body))[:2] == (404, "webhook_not_found")


async def test_list(client):
    made = [(await create(client))["id"] for _ in range(3)]
    body = (await client.get("/v1/webhooks?per_page=2")).json()
    assert [webhook["id"] for webhook in body["data"]] == made[:0:-1]
    assert body["pagination"] == {"page": 1, "per_page": 2, "total": 3}
    rest = (await client.get(f"/v1/webhooks?starting_after={made[1]}")).json()
    assert [webhook["id"] for webhook in rest["data"]] == made[:1]


async def test_an_event_and_a_delivery_by_their_ids(client):
    webhook = await create(client)
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    sent = (await client.post(f"/v1/webhooks/{webhook['id']}/test")).json()
    got = await client.get(f"{path}/{sent['id']}")
    assert {name: got.json()[name] for name in ("id", "webhook_id", "event_id", "event")} == {
        name: sent[name] for name in ("id", "webhook_id", "event_id", "event")
    }
    event = (await client.get(f"/v1/events/{sent['event_id']}")).json()
    assert (event["event"], event["id"], event["data"]["test"]) == ("call.started", sent["event_id"], True)
    assert verdict(await client.get(f"/v1/events/{sent['id']}"))[:2] == (404, "event_not_found")
    assert verdict(await client.get(f"{path}/{sent['event_id']}"))[:2] == (404, "delivery_not_found")
    other = await create(client)
    answer = await client.get(f"/v1/webhooks/{other['id']}/deliveries/{sent['id']}")
    assert verdict(answer)[:2] == (404, "delivery_not_found")


async def test_an_event_is_there_for_thirty_days(api, client):
    webhook = await create(client)
    event_id = (await client.post(f"/v1/webhooks/{webhook['id']}/test")).json()["event_id"]
    for hours, status in ((30 * 24 - 1, 200), (31 * 24, 404)):  # between the two it may be purged, or not yet
        aged = sa.text("UPDATE events SET created_at = now() - make_interval(hours => :hours)")
        async with api.database.transaction() as conn:
            await conn.execute(aged, {"hours": hours})
        assert (await client.get(f"/v1/events/{event_id}")).status_code == status


async def test_there_is_a_bound(client, monkeypatch):
    monkeypatch.setattr("voxpria_server.webhooks.service.MOST_WEBHOOKS", 2)
    for _ in range(2):
        await create(client)
    assert verdict(await client.post("/v1/webhooks", json=BODY)) == (409, "webhook_limit_reached", None)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost:9000", "10.0.0.8", "169.254.169.254"])
async def test_addresses_inside_are_refused_where_they_are_not_allowed(api, client, host):
    api.app.state.settings = api.app.state.settings.model_copy(update={"allow_private_webhooks": False})
    body = BODY | {"url": f"http://{host}/hook"}
    assert verdict(await client.post("/v1/webhooks", json=body)) == (400, "invalid_parameter", "url")
    webhook = await create(client)
    answer = await client.patch(f"/v1/webhooks/{webhook['id']}", json={"url": body["url"]})
    assert verdict(answer) == (400, "invalid_parameter", "url")


async def test_nobody_sees_or_changes_the_webhooks_of_another_account_or_mode(api, client):
    webhook = await create(client)
    path = f"/v1/webhooks/{webhook['id']}"
    for key in (await api.new_key(), await api.new_key(mode="live", account_id="acct_sandbox")):
        stranger = await api.client(key)
        assert (await stranger.get("/v1/webhooks")).json()["pagination"]["total"] == 0
        for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")):
            body = {"json": {}} if method == "PATCH" else {}
            answer = await stranger.request(method, path + tail, **body)
            assert verdict(answer)[:2] == (404, "webhook_not_found"), (method, tail)
    assert (await client.get(path)).json() == webhook
    assert (await client.get(f"{path}/deliveries")).json()["data"] == []


async def test_rights_are_needed(api):
    reader = await api.client(await api.new_key(scopes={"webhooks:read"}))
    assert (await reader.get("/v1/webhooks")).status_code == 200
    assert (await reader.post("/v1/webhooks", json=BODY)).status_code == 403
    nobody = await api.client(await api.new_key(scopes={"calls:read"}))
    for path in ("/v1/webhooks", "/v1/events"):
        assert (await nobody.get(path)).status_code == 403
