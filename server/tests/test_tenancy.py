"""Nobody sees or changes what is another account's, or of the other mode: every endpoint is tried."""

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY
from voxpria_server.kit.ids import new_id

from server.tests.edge_client import NUMBER, Story, connect

TRUNK = {"name": "Mine", "provider": "generic", "credentials": {}, "config": {"server": "127.0.0.1", "port": 9}}
OF_PATH = {
    "trunk_id": "trunk",
    "phone_id": "phone",
    "import_id": "import",
    "agent_id": "agent",
    "call_id": "call",
    "webhook_id": "webhook",
    "delivery_id": "delivery",
    "event_id": "event",
}
"""Which object of ours each path parameter names."""

BODIES = {("POST", "/v1/webhooks/{webhook_id}/recover"): {"since": "2026-01-01T00:00:00Z"}}
"""Bodies of operations on one object, where an empty one would not do."""

UNKEYED = {"/v1/recordings/{call_id}.mp3"}
"""Let in by a signature of their own, which `test_recordings` tries."""


async def _own(client) -> dict[str, str]:
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    agent = (await client.post("/v1/agents", json={"name": "A", "engine": "openai"})).json()["id"]
    body = {"phone_number": "+12125551234", "trunk_id": trunk, "agent_id": agent, "engine": "openai"}
    number = (await client.post("/v1/phone-numbers/import", json=body)).json()["id"]
    return {"trunk": trunk, "agent": agent, "phone": number}


async def _own_everything(api, client) -> dict[str, str]:
    """Make one of each kind of object, and return their ids."""
    mine = await _own(client)
    story = Story(trunk_id=mine["trunk"], number_id=mine["phone"], agent_id=mine["agent"])
    await (await connect(api)).send(*story.completed(recording=True))
    queued = {"queue": True, "numbers": [{"phone_number": "+12125551235", "trunk_id": mine["trunk"]}]}
    queued = await client.post("/v1/phone-numbers/bulk-import", json=queued)
    import_path = f"/v1/phone-numbers/bulk-import/{queued.json()['id']}"
    async with asyncio.timeout(90):  # what is still at work would change things by itself
        while (await client.get(import_path)).json()["status"] != "completed":
            await asyncio.sleep(0.05)
    webhook = await client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/", "events": ["call.ended"]})
    webhook_id = webhook.json()["id"]
    delivery = await client.post(f"/v1/webhooks/{webhook_id}/test")
    event = (await client.get("/v1/events")).json()["data"][0]
    return mine | {
        "call": story.id,
        "import": queued.json()["id"],
        "webhook": webhook_id,
        "delivery": delivery.json()["id"],
        "event": event["id"],
    }


@pytest.fixture(params=["another account", "the other mode"])
async def intruder(request, api):
    if request.param == "another account":
        return await api.client(await api.new_key())
    return await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))


def _operations(api) -> Iterator[tuple[str, str, dict]]:
    """Every operation of the served document that takes a key, as (method, path, operation)."""
    for path, operations in api.app.openapi()["paths"].items():
        if path not in UNKEYED:
            for method, operation in operations.items():
                yield method.upper(), path, operation


def _parameters(operation: dict, place: str) -> set[str]:
    return {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == place}


async def _refusal(client, method: str, path: str, ids: dict[str, str]) -> tuple[int, str]:
    """Ask for one object; return the status and the body, ids and request id taken out."""
    body = BODIES.get((method, path), {})
    content = {"json": body} if method in {"PATCH", "PUT"} or body else {}
    answer = await client.request(method, path.format(**ids), **content)
    text = answer.text
    for value in (*ids.values(), answer.headers["X-Request-Id"]):
        text = text.replace(value, "…")
    return answer.status_code, text


async def _state(api) -> dict[str, list]:
    """Everything of the sandbox's account in test mode that a stranger could have changed."""
    columns = {
        "trunks": "id, name, config, sealed_credentials, provisioned_at",
        "phone_numbers": "id, e164, trunk_id, engine, agent_id, config",
        "agents": "id, name, updated_at",
        "webhooks": "id, url, events, sealed_secret, updated_at",
        "calls": "id, status",
        "events": "id",
    }
    async with api.database.read() as conn:
        return {
            table: (
                await conn.execute(
                    sa.text(
                        f"SELECT {names} FROM {table} WHERE account_id = 'acct_sandbox' AND mode = 'test' ORDER BY id"
                    )
                )
            ).all()
            for table, names in columns.items()
        }


async def test_every_id_of_ours_is_to_a_stranger_as_if_it_never_was(api, client, intruder):
    """Each operation, with each id: the answer is the very one that an id gets which nobody has."""
    mine = await _own_everything(api, client)
    before = await _state(api)
    tried = 0
    for method, path, operation in _operations(api):
        names = _parameters(operation, "path")
        if not names:
            continue
        assert names <= OF_PATH.keys(), f"{path}: say in OF_PATH which object it names"
        nobodys = await _refusal(intruder, method, path, {name: new_id(OF_PATH[name]) for name in names})
        assert nobodys[0] == 404, f"{method} {path}: {nobodys} (does it need a body? see BODIES)"
        right = {name: mine[OF_PATH[name]] for name in names}
        for ids in (right, *(dict.fromkeys(names, value) for value in mine.values())):
            assert await _refusal(intruder, method, path, ids) == nobodys, f"{method} {path} {ids}"
            tried += 1
    assert tried > 150
    assert await _state(api) == before
    for kind, path in {"trunk": "/v1/sip/trunks", "phone": "/v1/phone-numbers", "call": "/v1/calls"}.items():
        assert (await client.get(f"{path}/{mine[kind]}")).status_code == 200


async def test_no_list_and_no_filter_shows_anything_of_ours(api, client, intruder):
    mine = await _own_everything(api, client)
    values = {*mine.values(), "+12125551234", NUMBER, "active", "completed", "inbound", "generic", "openai"}
    tried = 0
    for method, path, operation in _operations(api):
        if method != "GET" or "{" in path or "page" not in _parameters(operation, "query"):
            continue
        assert (await client.get(path)).json()["pagination"]["total"] > 0, f"{path}: own one of these"
        for query in [{}, *({name: v} for name in _parameters(operation, "query") for v in values)]:
            answer = await intruder.get(path, params=query)
            if answer.status_code == 400:  # no value of this parameter
                continue
            assert answer.json()["data"] == [], f"{path} {query}"
            assert answer.json()["pagination"]["total"] == 0
            tried += 1
    assert tried > 40


async def test_no_one_can_hang_a_number_on_what_is_not_theirs(client, intruder):
    mine = await _own(client)
    body = {"phone_number": "+12125550000", "trunk_id": mine["trunk"]}
    answer = await intruder.post("/v1/phone-numbers/import", json=body)
    assert answer.json()["error"]["code"] == "trunk_not_found"
    own = (await intruder.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    body = {"phone_number": "+12125550000", "trunk_id": own, "agent_id": mine["agent"]}
    answer = await intruder.post("/v1/phone-numbers/import", json=body)
    assert answer.json()["error"]["code"] == "agent_not_found"
    number = await intruder.post("/v1/phone-numbers/import", json={"phone_number": "+12125550000", "trunk_id": own})
    path = f"/v1/phone-numbers/{number.json()['id']}"
    answer = await intruder.patch(path, json={"agent_id": mine["agent"]})
    assert answer.json()["error"]["code"] == "agent_not_found"
    body |= {"agent_id": None, "engine": "elevenlabs", "phone_number": "+12125550001"}
    answer = await intruder.post("/v1/phone-numbers/import", json=body | {"config": {"engine_trunk_id": mine["trunk"]}})
    assert answer.json()["error"]["code"] == "trunk_not_found"
    assert answer.json()["error"]["details"] == {"field": "config.engine_trunk_id", "provided": mine["trunk"]}


async def test_an_agent_of_another_account_is_not_named(client, intruder):
    agent = (await _own(client))["agent"]
    trunk = (await intruder.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    body = {"phone_number": "+12125550000", "trunk_id": trunk, "engine": "elevenlabs", "agent_id": agent}
    number = await intruder.post("/v1/phone-numbers/import", json=body)
    got = (await intruder.get(f"/v1/phone-numbers/{number.json()['id']}")).json()
    assert (got["agent_id"], got["agent_name"]) == (agent, None)


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "api_key_missing"),
        ("", "api_key_missing"),
        ("vox_sk_test_wrong", "invalid_api_key"),
        ("x" * 600, "invalid_api_key"),
    ],
)
async def test_without_a_valid_key_nothing_is_given(api, key, code):
    stranger = await api.client(key)
    for path in ("/v1/sip/trunks", "/v1/phone-numbers", "/v1/agents"):
        answer = await stranger.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)


async def test_revoked_and_expired_keys_are_refused_at_once(api):
    client = await api.client(await api.new_key())
    assert (await client.get("/v1/agents")).status_code == 200
    for column in ("expires_at", "revoked_at"):
        async with api.database.transaction() as conn:
            await conn.exec_driver_sql(f"UPDATE api_keys SET {column} = now()")
        answer = await client.get("/v1/agents")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_key_does_what_its_scopes_say(api):
    reader = await api.client(await api.new_key(scopes={"trunks:read"}))
    assert (await reader.get("/v1/sip/trunks")).status_code == 200
    for method, path in (("POST", "/v1/sip/trunks"), ("GET", "/v1/phone-numbers"), ("GET", "/v1/agents")):
        answer = await reader.request(method, path, json=TRUNK if method == "POST" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_permissions")


async def test_the_documented_key_dies_with_the_sandbox(api):
    client = await api.client(DOCUMENTED_TEST_KEY)
    assert (await client.get("/v1/agents")).status_code == 200
    api.app.state.settings = api.app.state.settings.model_copy(update={"sandbox": False})
    answer = await client.get("/v1/agents")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_unknown_paths_and_methods(client):
    answer = await client.get("/v1/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    answer = await client.put("/v1/agents")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]


async def test_text_that_can_not_be_kept_is_the_senders_error(client):
    answer = await client.post("/v1/agents", json={"name": "a\0b", "engine": "openai"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    assert (await client.get("/v1/agents/a%00b")).status_code in {400, 404}


async def test_a_body_has_a_bound(client):
    body = b'{"name": "' + b"x" * (1 << 20) + b'", "engine": "openai"}'
    answer = await client.post("/v1/agents", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


async def test_agents_from_cradle_to_grave(client):
    body = {"name": "Support", "engine": "elevenlabs", "external_id": "agent_theirs", "language": "en-US"}
    made = (await client.post("/v1/agents", json=body)).json()
    assert made["id"].startswith("agent_")
    path = f"/v1/agents/{made['id']}"
    changed = (await client.patch(path, json={"voice": "warm", "language": None})).json()
    assert (changed["voice"], changed["language"], changed["name"]) == ("warm", None, "Support")
    assert (await client.patch(path, json={"name": None})).status_code == 400
    assert (await client.get("/v1/agents")).json()["data"][0]["voice"] == "warm"
    assert (await client.delete(path)).json() == {"success": True, "message": "Agent deleted successfully"}
    assert (await client.get(path)).json()["error"]["code"] == "agent_not_found"


async def test_bodies_that_name_what_is_ours_find_nothing(client, intruder):
    mine = await _own(client)
    own = (await intruder.post("/v1/sip/trunks", json=TRUNK)).json()["id"]

    async def verdict(method: str, path: str, trunk_id: str) -> tuple[int, str]:
        bodies = {
            "/v1/sip/trunks": TRUNK | {"name": "B", "config": TRUNK["config"] | {"failover_trunk_ids": [trunk_id]}},
            f"/v1/sip/trunks/{own}": {"config": {"failover_trunk_ids": [trunk_id]}},
            "/v1/phone-numbers/import": {"phone_number": "+12125550000", "trunk_id": trunk_id},
            "/v1/phone-numbers/bulk-import": {"numbers": [{"phone_number": "+12125550000", "trunk_id": trunk_id}]},
        }
        answer = await intruder.request(method, path, json=bodies[path])
        return answer.status_code, answer.text.replace(trunk_id, "…").replace(answer.headers["X-Request-Id"], "…")

    for method, path in (
        ("POST", "/v1/sip/trunks"),
        ("PATCH", f"/v1/sip/trunks/{own}"),
        ("POST", "/v1/phone-numbers/import"),
        ("POST", "/v1/phone-numbers/bulk-import"),
    ):
        status, text = await verdict(method, path, mine["trunk"])
        assert "trunk_not_found" in text, f"{method} {path}: {status} {text}"
        assert (status, text) == await verdict(method, path, new_id("trunk")), f"{method} {path}"
