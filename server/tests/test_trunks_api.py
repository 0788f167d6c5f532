"""Trunks, as a client of the API sees them."""

import asyncio

import pytest
from voxpria_routing.snapshot import Announcement
from voxpria_server.kit.ids import new_id

from server.tests.edge_client import whole_snapshot

SANDBOX = {"server": "sip.test.voxpria.com"}
CREDENTIALS = {"username": "test_user", "password": "test_pass"}


async def make_trunk(client, **changes):
    body = {"name": "Carrier", "provider": "generic", "credentials": CREDENTIALS, "config": SANDBOX} | changes
    return await client.post("/v1/sip/trunks", json=body)


async def test_a_trunk_is_made_and_read_back_without_its_credentials(client):
    made = await make_trunk(client)
    assert made.status_code == 201, made.text
    assert set(made.json()) == {"id", "name", "provider", "status", "created_at"}
    got = await client.get(f"/v1/sip/trunks/{made.json()['id']}")
    assert got.json()["config"]["server"] == "sip.test.voxpria.com"
    assert got.json()["config"]["port"] == 5060
    assert got.json()["phone_numbers"] == []
    assert "test_pass" not in got.text
    assert got.headers["x-request-id"].startswith("req_")


async def test_defaults_follow_the_provider(client):
    made = await make_trunk(client, provider="elevenlabs", config={})
    config = (await client.get(f"/v1/sip/trunks/{made.json()['id']}")).json()["config"]
    assert (config["server"], config["port"], config["transport"]) == ("sip.rtc.elevenlabs.io", 5061, "tls")


async def test_an_unreachable_server_is_no_error_and_health_says_so(client):
    trunk_id = (await make_trunk(client)).json()["id"]
    health = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]
    assert health["status"] == "unreachable"
    assert health["checked_at"].endswith("Z")


async def test_test_mode_never_leaves_the_machine(client):
    trunk_id = (await make_trunk(client, config={"server": "sip.example.com"})).json()["id"]
    health = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]
    assert health["status"] == "unreachable"
    assert "never leaves this machine" in health["detail"]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"name": None}, "invalid_parameter", "name"),
        ({"provider": "aol"}, "invalid_parameter", "provider"),
        ({"surprise": 1}, "invalid_parameter", "surprise"),
        ({"credentials": {"username": "u"}}, "missing_required_field", "credentials.password"),
        ({"credentials": {"password": "p"}}, "missing_required_field", "credentials.username"),
        ({"credentials": {"username": 5, "password": "p"}}, "invalid_parameter", "credentials.username"),
        ({"credentials": {"username": "a\r\nVia: x", "password": "p"}}, "invalid_parameter", "credentials.username"),
        ({"config": {}}, "missing_required_field", "config.server"),
        ({"config": {"server": "sip:x@y"}}, "invalid_parameter", "config.server"),
        ({"config": SANDBOX | {"port": 0}}, "invalid_parameter", "config.port"),
        ({"config": SANDBOX | {"port": 65536}}, "invalid_parameter", "config.port"),
        ({"config": SANDBOX | {"port": "5060"}}, "invalid_parameter", "config.port"),
        ({"config": SANDBOX | {"transport": "sctp"}}, "invalid_parameter", "config.transport"),
        (
            {"config": SANDBOX | {"allowed_addresses": ["10.0.0.0/33"]}},
            "invalid_parameter",
            "config.allowed_addresses.0",
        ),
        ({"config": SANDBOX | {"max_concurrent_calls": 0}}, "invalid_parameter", "config.max_concurrent_calls"),
        ({"config": SANDBOX | {"max_concurrent_calls": True}}, "invalid_parameter", "config.max_concurrent_calls"),
        ({"config": SANDBOX | {"max_calls_per_second": 0}}, "invalid_parameter", "config.max_calls_per_second"),
        ({"config": SANDBOX | {"max_calls_per_second": "5"}}, "invalid_parameter", "config.max_calls_per_second"),
        ({"config": SANDBOX | {"media_encryption": "maybe"}}, "invalid_parameter", "config.media_encryption"),
        ({"config": SANDBOX | {"codecs": ["GSM"]}}, "invalid_parameter", "config.codecs.0"),
        ({"config": SANDBOX | {"codecs": ["pcmu", "PCMU"]}}, "invalid_parameter", "config.codecs"),
        ({"config": SANDBOX | {"codecs": "PCMU"}}, "invalid_parameter", "config.codecs"),
        ({"config": SANDBOX | {"register": "yes"}}, "invalid_parameter", "config.register"),
        ({"config": SANDBOX | {"register_": True}}, "invalid_parameter", "config.register_"),
        ({"config": SANDBOX | {"register": True}, "credentials": {}}, "missing_required_field", "credentials.username"),
        ({"config": SANDBOX | {"is_open": 1}}, "invalid_parameter", "config.is_open"),
        ({"config": SANDBOX | {"surprise": 1}}, "invalid_parameter", "config.surprise"),
        ({"config": {"register": True}, "provider": "elevenlabs"}, "invalid_parameter", "config.register"),
        ({"config": {"codecs": ["opus"]}, "provider": "elevenlabs"}, "invalid_parameter", "config.codecs"),
        (
            {"provider": "elevenlabs", "credentials": {"username": "u"}},
            "missing_required_field",
            "credentials.password",
        ),
        (
            {"provider": "openai", "credentials": {"project_id": "p", "api_key": "sk-1", "webhook_secret": "whsec_1"}},
            "invalid_parameter",
            "credentials.project_id",
        ),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(client, changes, code, field):
    answer = await make_trunk(client, **changes)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["details"]["field"]) == (code, field)
    assert error["request_id"] == answer.headers["x-request-id"]


async def test_a_refused_secret_is_not_echoed(client):
    answer = await make_trunk(client, credentials={"username": "u", "password": "hunter2\n"})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


async def test_bad_json_and_missing_fields(client):
    answer = await client.post("/v1/sip/trunks", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    answer = await client.post("/v1/sip/trunks", json={"provider": "generic"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "missing_required_field")
    assert answer.json()["error"]["details"]["field"] == "name"


async def test_addresses_are_normalised(client):
    config = SANDBOX | {"allowed_addresses": ["198.51.100.7", "203.0.113.9/24", "2001:DB8::1"], "transport": "tls"}
    trunk_id = (await make_trunk(client, config=config)).json()["id"]
    got = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["config"]
    assert got["allowed_addresses"] == ["198.51.100.7", "203.0.113.0/24", "2001:db8::1"]
    assert got["port"] == 5061


async def test_names_are_unique_in_an_account_and_mode(client, api):
    assert (await make_trunk(client)).status_code == 201
    again = await make_trunk(client)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "trunk_name_exists")
    assert again.json()["error"]["details"] == {"field": "name", "provided": "Carrier"}
    other = await api.client(await api.new_key())
    assert (await make_trunk(other)).status_code == 201


async def test_patch_merges_credentials_and_config(client):
    trunk_id = (await make_trunk(client)).json()["id"]
    answer = await client.patch(
        f"/v1/sip/trunks/{trunk_id}",
        json={"name": "New", "credentials": {"password": "other"}, "config": {"record": True}},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == "New"
    assert answer.json()["config"] == {
        "server": "sip.test.voxpria.com",
        "port": 5060,
        "transport": "udp",
        "allowed_addresses": [],
        "is_open": False,
        "media_encryption": "allowed",
        "max_concurrent_calls": None,
        "max_calls_per_second": None,
        "register": False,
        "codecs": [],
        "failover_trunk_ids": [],
        "asserted_identity": True,
        "record": True,
        "recording_announcement": None,
        "country": None,
        "ring_timeout": None,
    }


async def test_every_field_of_config_is_kept_and_can_be_changed_alone(client):
    second = (await make_trunk(client, name="Second")).json()["id"]
    config = SANDBOX | {
        "allowed_addresses": ["198.51.100.0/24"],
        "media_encryption": "required",
        "max_concurrent_calls": 30,
        "max_calls_per_second": 2.5,
        "register": True,
        "codecs": ["g722", "pcmu"],
        "failover_trunk_ids": [second],
        "asserted_identity": False,
        "record": False,
        "recording_announcement": {"text": "Dieses Gespräch wird aufgezeichnet.", "language": "de-DE"},
        "country": "DE",
        "ring_timeout": 20,
    }
    path = f"/v1/sip/trunks/{(await make_trunk(client, config=config)).json()['id']}"
    kept = (await client.get(path)).json()["config"]
    defaults = {"port": 5060, "transport": "udp", "is_open": False}
    assert kept == config | defaults | {"codecs": ["G722", "PCMU"]}
    await client.patch(path, json={"config": {"max_concurrent_calls": None, "is_open": True}})
    assert (await client.get(path)).json()["config"] == kept | {"max_concurrent_calls": None, "is_open": True}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"text": "  "}, "config.recording_announcement.text"),
        ({"text": "x" * 501}, "config.recording_announcement.text"),
        ({"text": "One\x00two"}, "config.recording_announcement.text"),
        ({"text": "Hello", "language": "-v en"}, "config.recording_announcement.language"),
        ({"text": "Hello", "voice": "deep"}, "config.recording_announcement.voice"),
        ({"language": "en"}, "config.recording_announcement.text"),
        ("Hello", "config.recording_announcement"),
    ],
)
async def test_an_announcement_that_can_not_be_one_is_refused(client, given, field):
    answer = await make_trunk(client, config=SANDBOX | {"recording_announcement": given})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["details"]["field"] == field


async def test_an_announcement_reaches_the_edges_and_can_be_taken_back(client, api):
    config = SANDBOX | {"recording_announcement": {"text": "  This call\n is recorded. "}}
    path = f"/v1/sip/trunks/{(await make_trunk(client, config=config)).json()['id']}"
    kept = {"text": "This call is recorded.", "language": "en-US"}
    assert (await client.get(path)).json()["config"]["recording_announcement"] == kept
    assert await announcements(api) == [Announcement(**kept)]
    answer = await client.patch(path, json={"config": {"recording_announcement": None}})
    assert answer.json()["config"]["recording_announcement"] is None
    assert await announcements(api) == [None]


async def announcements(api):
    """What the edges' routes say of each trunk's announcement."""
    async with api.database.transaction() as conn:
        routes = await whole_snapshot(conn, api.app.state.settings, api.app.state.sealer)
    return [trunk.announcement for trunk in routes.trunks.values()]


async def test_a_transports_own_port_follows_the_transport(client):
    path = f"/v1/sip/trunks/{(await make_trunk(client)).json()['id']}"
    answer = await client.patch(path, json={"config": {"transport": "tls"}})
    assert (answer.json()["config"]["transport"], answer.json()["config"]["port"]) == ("tls", 5061)
    await client.patch(path, json={"config": {"port": 5080}})
    answer = await client.patch(path, json={"config": {"transport": "tcp"}})
    assert answer.json()["config"]["port"] == 5080
    made = await make_trunk(client, name="E", provider="elevenlabs", config={"transport": "tcp"})
    assert (await client.get(f"/v1/sip/trunks/{made.json()['id']}")).json()["config"]["port"] == 5060


async def test_failovers_are_trunks_of_the_same_account_and_mode(client, api):
    other = await api.client(await api.new_key())
    live = await api.client(await api.new_key(mode="live", account_id="acct_sandbox"))
    strangers = [(await make_trunk(who, config={"server": "127.0.0.1"})).json()["id"] for who in (other, live)]
    first, second = [(await make_trunk(client, name=name)).json()["id"] for name in ("First", "Second")]
    for wrong in (*strangers, "trunk_none"):
        for answer in (
            await make_trunk(client, config=SANDBOX | {"failover_trunk_ids": [second, wrong]}),
            await client.patch(f"/v1/sip/trunks/{first}", json={"config": {"failover_trunk_ids": [wrong]}}),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (404, "trunk_not_found")
            assert error["details"] == {"field": "config.failover_trunk_ids", "provided": wrong}
    answer = await client.patch(f"/v1/sip/trunks/{first}", json={"config": {"failover_trunk_ids": [first]}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    answer = await client.patch(f"/v1/sip/trunks/{first}", json={"config": {"failover_trunk_ids": [second]}})
    assert answer.status_code == 200, answer.text
    await client.delete(f"/v1/sip/trunks/{second}")
    assert (await client.get(f"/v1/sip/trunks/{first}")).json()["config"]["failover_trunk_ids"] == []


async def test_what_changes_nothing_tells_nobody(client, api):
    trunk_id = (await make_trunk(client)).json()["id"]
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"name": "N", "config": SANDBOX, "credentials": CREDENTIALS})
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM events")).scalar_one() == 0


async def test_patch_can_not_take_another_trunks_name(client):
    await make_trunk(client)
    trunk_id = (await make_trunk(client, name="Second")).json()["id"]
    answer = await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"name": "Carrier"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "trunk_name_exists")


async def test_what_is_known_is_said_before_the_server_is_asked(client):
    """A server that takes connections and is silent holds up nobody who asks for a name that is taken."""
    asked = []
    silent = await asyncio.start_server(lambda reader, _: asked.append(reader), "127.0.0.1", 0)
    config = {"server": "127.0.0.1", "port": silent.sockets[0].getsockname()[1], "transport": "tcp"}
    await make_trunk(client)
    second = (await make_trunk(client, name="Second")).json()["id"]
    gone = new_id("trunk")
    for answer in (
        await make_trunk(client, config=config),
        await client.patch(f"/v1/sip/trunks/{second}", json={"name": "Carrier", "config": config}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "trunk_name_exists")
    for answer in (
        await make_trunk(client, name="Third", config=config | {"failover_trunk_ids": [gone]}),
        await client.patch(f"/v1/sip/trunks/{second}", json={"config": config | {"failover_trunk_ids": [gone]}}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "trunk_not_found")
    assert asked == []
    silent.close()


async def test_lists_are_paged_newest_first_and_filtered(client):
    ids = [(await make_trunk(client, name=f"T{i}")).json()["id"] for i in range(3)]
    await make_trunk(client, name="E", provider="elevenlabs", config={})
    page = (await client.get("/v1/sip/trunks?provider=generic&per_page=2")).json()
    assert [trunk["id"] for trunk in page["data"]] == [ids[2], ids[1]]
    assert page["pagination"] == {"page": 1, "per_page": 2, "total": 3}
    assert page["data"][0]["phone_numbers_count"] == 0
    after = (await client.get(f"/v1/sip/trunks?provider=generic&starting_after={ids[1]}")).json()
    assert [trunk["id"] for trunk in after["data"]] == [ids[0]]
    for wrong in ("per_page=101", "page=0", "page=x", "provider=aol"):
        assert (await client.get(f"/v1/sip/trunks?{wrong}")).status_code == 400


async def test_trunks_with_active_numbers_stay_unless_forced(client, api):
    trunk_id = (await make_trunk(client)).json()["id"]
    number = await client.post("/v1/phone-numbers/import", json={"phone_number": "+15555551234", "trunk_id": trunk_id})
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE phone_numbers SET status = 'active'")
    answer = await client.delete(f"/v1/sip/trunks/{trunk_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "trunk_has_active_numbers")
    answer = await client.delete(f"/v1/sip/trunks/{trunk_id}?force=true")
    assert answer.json() == {"success": True, "message": "Trunk deleted successfully"}
    assert (await client.get(f"/v1/phone-numbers/{number.json()['id']}")).status_code == 404


@pytest.mark.parametrize(("given", "kept"), [({}, "required"), ({"media_encryption": "allowed"}, "allowed")])
async def test_openai_trunks_require_encryption_unless_told_otherwise(client, given, kept):
    credentials = {"project_id": "proj_abc123", "api_key": "sk-proj-xyz789", "webhook_secret": "whsec_def456"}
    trunk = await make_trunk(client, name="O", provider="openai", credentials=credentials, config=given)
    answer = await client.get(f"/v1/sip/trunks/{trunk.json()['id']}")
    assert answer.json()["config"]["media_encryption"] == kept


async def test_only_openai_trunks_are_provisioned_as_a_whole(client):
    generic = (await make_trunk(client)).json()["id"]
    answer = await client.post(f"/v1/sip/trunks/{generic}/provision")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    credentials = {"project_id": "proj_abc123", "api_key": "sk-proj-xyz789", "webhook_secret": "whsec_def456"}
    openai = await make_trunk(client, name="O", provider="openai", credentials=credentials, config={})
    answer = await client.post(f"/v1/sip/trunks/{openai.json()['id']}/provision")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "provisioning_failed")
    assert answer.json()["error"]["details"] == {"provider": "openai", "reason": "OpenAI did not answer"}


async def test_two_creates_of_one_name_at_once_make_one(client):
    answers = await asyncio.gather(*(make_trunk(client) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
