"""Phone numbers, as a client of the API sees them; edge and sandbox are scripted, on real sockets."""

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import msgspec
import pytest
from aiohttp import web
from voxpria_routing.decide import decide
from voxpria_routing.decision import Dial, Invite, Reject
from voxpria_routing.edge_api import Part, Status
from voxpria_routing.table import Table
from voxpria_routing.uris import next_hop_uri
from voxpria_server.kit.clock import utc_now
from voxpria_server.numbers import endpoints
from voxpria_server.numbers import jobs as number_jobs
from voxpria_server.numbers.service import count_calls
from voxpria_server.routing import edges, version

from server.tests.edge_client import whole_snapshot

GENERIC = {
    "name": "Carrier",
    "provider": "generic",
    "credentials": {"username": "test_user", "password": "test_pass"},
    "config": {"server": "sip.test.voxpria.com"},
}
ELEVENLABS = {"name": "EL", "provider": "elevenlabs", "credentials": {"username": "u", "password": "p"}}
GOOD, BAD, SLOW = "+15555551234", "+15555551235", "+15555551236"


class FakeSandbox:
    """The sandbox's HTTP side: takes numbers but the bad one; the slow one as soon as `patience` is set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str | None, dict]] = []
        self.patience = asyncio.Event()
        self.failures_left = 0
        self.shown: dict[str, object] = {}

    async def elevenlabs(self, request: web.Request) -> web.Response:
        return await self._take(request, lambda: web.json_response({"phone_number_id": "phnum_1"}))

    async def listed(self, _request: web.Request) -> web.Response:
        return web.json_response([])

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response({"phone_number_id": request.match_info["id"], **self.shown})

    async def generic(self, request: web.Request) -> web.Response:
        return await self._take(request, lambda: web.json_response({}))

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({})

    async def _take(self, request: web.Request, accept) -> web.Response:
        body = await request.json()
        self.requests.append((request.method, request.path, request.headers.get("xi-api-key"), body))
        if self.failures_left:
            self.failures_left -= 1
            return web.Response(status=503)
        if body.get("phone_number") == BAD:
            return web.json_response({"detail": "this number always fails"}, status=422)
        if body.get("phone_number") == SLOW:
            await self.patience.wait()
        return accept()


@pytest.fixture
async def sandbox(settings):
    fake = FakeSandbox()
    app = web.Application()
    app.router.add_post("/elevenlabs/v1/convai/phone-numbers", fake.elevenlabs)
    app.router.add_patch("/elevenlabs/v1/convai/phone-numbers/{id}", fake.elevenlabs)
    app.router.add_get("/elevenlabs/v1/convai/phone-numbers", fake.listed)
    app.router.add_get("/elevenlabs/v1/convai/phone-numbers/{id}", fake.show)
    app.router.add_post("/sip/numbers", fake.generic)
    app.router.add_get("/healthz", fake.health)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    yield fake
    fake.patience.set()
    await runner.cleanup()


async def run_edge(database, edge_id="edge_1", lag=None, unsent_events=0):
    """Acknowledge every version, as an edge does; `lag` holds it back."""
    applied = 0
    while True:
        parts = {"kamailio": Part(is_up=True), "rtpengine": Part(is_up=True)}
        status = Status(
            edge_id=edge_id, applied_version=applied, parts=parts, open_calls=0, unsent_events=unsent_events
        )
        async with database.transaction() as conn:
            await edges.report(conn, status)
        applied = await version.wait_for(database, applied, 2)
        if lag is not None:
            await lag.wait()


@asynccontextmanager
async def an_edge(database, **options):
    task = asyncio.create_task(run_edge(database, **options))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def edge(api):
    async with an_edge(api.database):
        yield


async def make_trunk(client, body=GENERIC, **changes):
    answer = await client.post("/v1/sip/trunks", json=body | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def import_number(client, trunk_id, number=GOOD, **changes):
    return await client.post("/v1/phone-numbers/import", json={"phone_number": number, "trunk_id": trunk_id} | changes)


async def until(client, phone_id, status, seconds=90):
    async with asyncio.timeout(seconds):
        while True:
            row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
            if row["status"] == status:
                return row
            await asyncio.sleep(0.02)


async def until_no_job_is_left(api, seconds=90):
    left = "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'provisioning' AND status < 'succeeded'"
    async with asyncio.timeout(seconds):
        while True:
            async with api.database.read() as conn:
                if not (await conn.exec_driver_sql(left)).scalar_one():
                    return
            await asyncio.sleep(0.02)


async def snapshot_of(api):
    async with api.database.transaction() as conn:
        return await whole_snapshot(conn, api.app.state.settings, api.app.state.sealer)


async def test_a_generic_number_becomes_active_by_itself(client, api, sandbox, edge):
    trunk_id = await make_trunk(client)
    config = {"first_message": "Hello", "max_duration": 60, "language": "en-US"}
    made = await import_number(client, trunk_id, config=config)
    assert made.status_code == 201, made.text
    assert made.json()["status"] == "provisioning"
    row = await until(client, made.json()["id"], "active")
    assert row["trunk_name"] == "Carrier"
    assert row["config"] == config
    assert row["provisioned_at"]
    assert row["stats"] == {"total_calls": 0, "total_minutes": 0.0, "last_call_at": None}
    assert sandbox.requests == [("POST", "/sip/numbers", None, {"phone_number": GOOD})]
    answer = await client.post(f"/v1/phone-numbers/{row['id']}/provision")
    assert answer.json() == {"success": True, "status": "active", "provisioned_at": row["provisioned_at"]}


async def test_it_is_not_active_before_the_edge_has_the_route(client, api, sandbox, monkeypatch):
    monkeypatch.setattr(endpoints, "WAIT_SECONDS", 0.5)
    lag = asyncio.Event()
    async with an_edge(api.database, lag=lag):
        phone_id = (await import_number(client, await make_trunk(client))).json()["id"]
        answer = await client.post(f"/v1/phone-numbers/{phone_id}/provision")
        assert (answer.status_code, answer.json()["status"]) == (202, "provisioning")
        lag.set()
        await until(client, phone_id, "active")


async def test_an_elevenlabs_number_waits_for_its_provisioning(client, sandbox, edge):
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, agent_id="agent_theirs")).json()["id"]
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["status"], row["engine"], sandbox.requests) == ("provisioning", "elevenlabs", [])
    answer = await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    assert (answer.status_code, answer.json()["status"]) == (200, "active"), answer.text
    [(method, _, key, body)] = sandbox.requests
    assert (method, key, body["agent_id"]) == ("POST", "sandbox", "agent_theirs")
    assert body["inbound_trunk_config"]["credentials"] == {"username": "u", "password": "p"}


async def until_no_job_provisions(database) -> None:
    statement = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'numbers:provision'"
    async with asyncio.timeout(90):
        while True:
            async with database.read() as conn:
                if (await conn.exec_driver_sql(statement)).scalar_one() == 0:
                    return
            await asyncio.sleep(0.05)


async def until_reason(client, phone_id: str, status: str, words: str) -> None:
    async with asyncio.timeout(90):
        while True:
            row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
            if row["status"] == status and words in (row["status_reason"] or ""):
                return
            await asyncio.sleep(0.05)


async def test_live_numbers_that_nobody_is_asked_for_are_provisioned_together(api, edge):
    client = await api.client(await api.new_key(mode="live"))
    there, lost = [
        await make_trunk(client, name=name, config={"server": "127.0.0.1", "port": 9}) for name in ("there", "lost")
    ]
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE trunks SET sealed_credentials = 'x' WHERE id = $1", (lost,))
    rows = [{"phone_number": f"+1212555000{n}", "trunk_id": there} for n in range(3)]
    rows.append({"phone_number": "+12125550003", "trunk_id": lost})
    answer = await client.post("/v1/phone-numbers/bulk-import", json={"numbers": rows})
    ids = [row["id"] for row in answer.json()["results"]]
    for phone_id in ids[:3]:
        row = await until(client, phone_id, "active")
        assert (row["needs_reprovision"], row["capabilities"]["inbound"]) == (False, True)
    await until_reason(client, ids[3], "inactive", "can't be opened")
    events = (await client.get("/v1/events?type=number.provisioned")).json()["data"]
    assert sorted(event["data"]["phone_number_id"] for event in events) == ids[:3]
    await until_no_job_is_left(api)


async def test_numbers_without_an_edge_wait_in_one_job_and_go_on_when_one_comes(api, client, sandbox, monkeypatch):
    monkeypatch.setattr(number_jobs, "_EDGE_WAIT_SECONDS", 0.5)
    trunk_id = await make_trunk(client)
    numbers = [(await import_number(client, trunk_id, f"+1555555010{n}")).json()["id"] for n in range(5)]
    for phone_id in numbers:
        await until_reason(client, phone_id, "provisioning", "waiting for the edge")
    await until_no_job_provisions(api.database)
    asked = len(sandbox.requests)
    monkeypatch.setattr(number_jobs, "_NO_EDGE", timedelta(0))
    monkeypatch.setattr(number_jobs, "_NO_EDGE_PAUSE_SECONDS", 0.1)
    for phone_id in numbers:
        await until_reason(client, phone_id, "inactive", "no edge has taken its route")
    assert len(sandbox.requests) == asked  # the provider is not asked again for what it has done
    answer = await client.post(f"/v1/phone-numbers/{numbers[0]}/provision")
    assert answer.status_code == 202 or "no edge has taken" in answer.json()["error"]["details"]["reason"]
    async with an_edge(api.database):
        for phone_id in numbers:
            await until(client, phone_id, "active")
            assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["status_reason"] is None


async def test_a_refusal_is_an_error_with_the_providers_reason(client, sandbox, edge):
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, BAD)).json()["id"]
    answer = await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (500, "provisioning_failed")
    assert error["details"]["reason"] == "this number always fails"
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["status"], row["status_reason"]) == ("inactive", "this number always fails")


async def test_a_refusal_on_a_generic_trunk_leaves_the_reason(client, sandbox, edge):
    phone_id = (await import_number(client, await make_trunk(client), BAD)).json()["id"]
    assert (await until(client, phone_id, "inactive"))["status_reason"] == "this number always fails"


async def test_slow_provisioning_answers_202_and_goes_on(client, sandbox, edge, monkeypatch):
    monkeypatch.setattr(endpoints, "WAIT_SECONDS", 0.5)
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, SLOW)).json()["id"]
    answer = await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    assert (answer.status_code, answer.json()["status"]) == (202, "provisioning")
    sandbox.patience.set()
    await until(client, phone_id, "active")


async def test_a_provider_that_is_away_is_asked_again(client, sandbox, edge):
    sandbox.failures_left = 1
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id)).json()["id"]
    answer = await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    assert (answer.status_code, len(sandbox.requests)) == (200, 2)


async def test_new_credentials_want_new_provisioning(client, sandbox, edge):
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id)).json()["id"]
    await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"credentials": {"password": "new"}})
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["status"], row["needs_reprovision"]) == ("active", True)
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/reprovision-all")
    assert answer.json() == {"success": True, "total_numbers": 1, "provisioned": 1, "failed": 0, "provisioning": 0}
    method, path, _, body = sandbox.requests[-1]
    assert (method, path) == ("PATCH", "/elevenlabs/v1/convai/phone-numbers/phnum_1")
    assert body["inbound_trunk_config"]["credentials"]["password"] == "new"
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["needs_reprovision"] is False


async def test_an_active_number_tells_that_its_agent_calls_elsewhere(client, sandbox, edge):
    carrier = await make_trunk(client, GENERIC)
    agents = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, carrier, engine="elevenlabs")).json()["id"]
    provision = f"/v1/phone-numbers/{phone_id}/provision"
    assert (await client.post(provision)).json()["status"] == "active"
    assert sandbox.requests[-1][3]["outbound_trunk_config"]["credentials"] == {"username": "u", "password": "p"}
    sandbox.shown = {"outbound_trunk": {"address": "acme.pstn.example.com", "username": "acme"}}
    await client.patch(f"/v1/sip/trunks/{agents}", json={"config": {"media_encryption": "disabled"}})
    assert (await client.post(provision)).json()["status"] == "active"
    number = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (number["status"], "acme.pstn.example.com" in number["status_reason"]) == ("active", True)
    assert "outbound_trunk_config" not in sandbox.requests[-1][3]
    sandbox.shown = {}
    assert (await client.post(provision)).json()["status"] == "active"
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["status_reason"] is None
    assert sandbox.requests[-1][3]["outbound_trunk_config"]["media_encryption"] == "disabled"


@pytest.mark.parametrize(
    "number",
    ["2125551234", "+0125551234", "+123456", "+1234567890123456", "+1 212 555 1234", "+12125551234x", "", "+1", "+19"],
)
async def test_numbers_out_of_form_are_refused(client, number):
    answer = await import_number(client, await make_trunk(client), number)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_phone_number")
    assert error["details"] == {"field": "phone_number", "provided": number}


async def test_a_number_is_imported_once(client, api):
    trunk_id = await make_trunk(client)
    assert (await import_number(client, trunk_id)).status_code == 201
    again = await import_number(client, trunk_id)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "phone_number_exists")
    other = await api.client(await api.new_key())
    assert (await import_number(other, await make_trunk(other))).status_code == 201


async def test_what_a_number_names_must_exist(client):
    trunk_id = await make_trunk(client)
    answer = await import_number(client, "trunk_none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "trunk_not_found")
    answer = await import_number(client, trunk_id, agent_id="agent_none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "agent_not_found")
    answer = await import_number(client, await make_trunk(client, ELEVENLABS), engine="openai")
    assert (answer.status_code, answer.json()["error"]["details"]["field"]) == (400, "engine")


async def test_patch_list_and_delete(client, sandbox, edge):
    agent = await client.post("/v1/agents", json={"name": "Support", "engine": "openai"})
    trunk_id = await make_trunk(client)
    phone_id = (await import_number(client, trunk_id, agent_id=agent.json()["id"])).json()["id"]
    await until(client, phone_id, "active")
    answer = await client.patch(f"/v1/phone-numbers/{phone_id}", json={"config": {"max_duration": 1800}})
    assert answer.status_code == 200, answer.text
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["agent_name"], row["config"]["max_duration"]) == ("Support", 1800)
    await client.patch(f"/v1/phone-numbers/{phone_id}", json={"agent_id": None})
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["agent_name"], row["config"]["max_duration"], row["status"]) == (None, 1800, "active")
    for query, total in (
        (f"trunk_id={trunk_id}", 1),
        ("status=active", 1),
        ("status=inactive", 0),
        ("engine=openai", 0),
    ):
        assert (await client.get(f"/v1/phone-numbers?{query}")).json()["pagination"]["total"] == total
    assert (await client.get("/v1/phone-numbers?status=gone")).status_code == 400
    assert (await client.delete(f"/v1/phone-numbers/{phone_id}")).json()["success"] is True
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["error"]["code"] == "phone_not_found"


async def test_a_number_is_switched_off_and_on(client, api, sandbox, edge, settings):
    trunk_id = await make_trunk(client)
    phone_id = (await import_number(client, trunk_id)).json()["id"]
    other_id = (await import_number(client, trunk_id, "+15555551237")).json()["id"]
    await until(client, phone_id, "active")
    await until(client, other_id, "active")
    answer = await client.patch(f"/v1/phone-numbers/{phone_id}", json={"status": "inactive"})
    assert (answer.status_code, answer.json()["status"]) == (200, "inactive")
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["status"], row["status_reason"]) == ("inactive", "switched off through the API")

    invite = Invite(request_user=GOOD, from_user="+13035550000", source_address=settings.sandbox_carrier_address)
    refused = decide(Table(await snapshot_of(api)), invite)
    assert isinstance(refused, Reject)
    assert refused.sip_answer[0] == 480
    assert "it was switched off" in refused.explanation.summary

    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/reprovision-all")
    assert answer.json()["total_numbers"] == 1
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["status"] == "inactive"

    answer = await client.patch(f"/v1/phone-numbers/{phone_id}", json={"status": "active"})
    assert (answer.status_code, answer.json()["status"]) == (200, "provisioning")
    row = await until(client, phone_id, "active")
    assert row["status_reason"] is None
    assert isinstance(decide(Table(await snapshot_of(api)), invite), Dial)
    again = await client.patch(f"/v1/phone-numbers/{phone_id}", json={"status": "active"})
    assert again.json()["status"] == "active"


async def test_provisioning_that_goes_on_does_not_switch_a_number_on(client, api, sandbox, edge, monkeypatch):
    monkeypatch.setattr(endpoints, "WAIT_SECONDS", 0.5)
    phone_id = (await import_number(client, await make_trunk(client, ELEVENLABS), SLOW)).json()["id"]
    assert (await client.post(f"/v1/phone-numbers/{phone_id}/provision")).status_code == 202
    async with asyncio.timeout(60):
        while not sandbox.requests:
            await asyncio.sleep(0.02)
    await client.patch(f"/v1/phone-numbers/{phone_id}", json={"status": "inactive"})
    sandbox.patience.set()
    await until_no_job_is_left(api)
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["status"] == "inactive"
    await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    await until(client, phone_id, "active")


async def test_an_edge_that_comes_does_not_switch_a_number_on(client, api, sandbox):
    phone_id = (await import_number(client, await make_trunk(client))).json()["id"]
    async with asyncio.timeout(60):
        while not (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["status_reason"]:
            await asyncio.sleep(0.02)
    await client.patch(f"/v1/phone-numbers/{phone_id}", json={"status": "inactive"})
    async with an_edge(api.database):
        await until_no_job_is_left(api)
        row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
        assert (row["status"], row["status_reason"]) == ("inactive", "switched off through the API")


async def test_an_agent_in_use_stays_unless_forced(client, api, sandbox, edge):
    agent_id = (await client.post("/v1/agents", json={"name": "Support", "engine": "elevenlabs"})).json()["id"]
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, agent_id=agent_id)).json()["id"]
    await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    answer = await client.delete(f"/v1/agents/{agent_id}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (409, "agent_in_use", {"phone_numbers": 1})
    assert (await client.delete(f"/v1/agents/{agent_id}?force=true")).json()["success"] is True
    row = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()
    assert (row["agent_id"], row["status"], row["needs_reprovision"]) == (None, "active", True)
    assert (await client.delete(f"/v1/agents/{agent_id}")).json()["error"]["code"] == "agent_not_found"


async def test_a_number_behind_a_carrier_is_marked_when_its_engines_trunk_changes(client, sandbox, edge):
    carrier, engine = await make_trunk(client), await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, carrier, engine="elevenlabs")).json()["id"]
    await client.post(f"/v1/phone-numbers/{phone_id}/provision")
    await client.patch(f"/v1/sip/trunks/{engine}", json={"credentials": {"password": "new"}})
    assert (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["needs_reprovision"] is True
    answer = await client.post(f"/v1/sip/trunks/{engine}/reprovision-all")
    assert (answer.json()["total_numbers"], answer.json()["provisioned"]) == (1, 1)
    assert sandbox.requests[-1][3]["inbound_trunk_config"]["credentials"]["password"] == "new"


async def test_what_changes_is_told_to_webhooks(client, api, sandbox, edge):
    trunk_id = await make_trunk(client)
    phone_id = (await import_number(client, trunk_id)).json()["id"]
    await until(client, phone_id, "active")
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"name": "Renamed"})
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"config": {"record": False}})
    async with api.database.read() as conn:
        rows = await conn.exec_driver_sql("SELECT type, body FROM events ORDER BY id")
        told = [(row.type, json.loads(bytes(row.body))["data"]) for row in rows]
    assert [kind for kind, _ in told] == ["number.provisioned", "trunk.updated"]
    assert (told[0][1]["phone_number_id"], told[0][1]["phone_number"]) == (phone_id, GOOD)
    assert (told[1][1]["trunk_id"], told[1][1]["name"]) == (trunk_id, "Renamed")


async def test_stats_are_sums_of_counted_calls(client, api):
    phone_id = (await import_number(client, await make_trunk(client))).json()["id"]
    at = utc_now()
    for seconds in (30, 63):
        async with api.database.transaction() as conn:
            await count_calls(conn, [(phone_id, seconds, at), ("phone_gone", seconds, at)])
    stats = (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["stats"]
    assert (stats["total_calls"], stats["total_minutes"]) == (2, 1.6)


async def test_the_snapshot_dials_what_is_provisioned(client, api, sandbox, edge, settings):
    trunk_id = await make_trunk(client)
    phone_id = (await import_number(client, trunk_id, config={"first_message": "Hi"})).json()["id"]
    await until(client, phone_id, "active")
    invite = Invite(request_user=GOOD, from_user="+13035550000", source_address=settings.sandbox_carrier_address)
    decision = decide(Table(await snapshot_of(api)), invite)
    assert isinstance(decision, Dial)
    assert next_hop_uri(decision.target) == f"sip:{settings.sandbox_address}:{settings.sip_port}"
    assert (decision.target.username, decision.target.password) == ("test_user", "test_pass")
    assert decision.number.first_message == "Hi"
    stranger = decide(Table(await snapshot_of(api)), msgspec.structs.replace(invite, source_address="203.0.113.1"))
    assert isinstance(stranger, Reject)


async def test_an_engine_number_goes_to_the_trunk_of_its_engine(client, api, settings):
    carrier = await make_trunk(client)
    phone_id = (await import_number(client, carrier, engine="elevenlabs")).json()["id"]
    [number] = (await snapshot_of(api)).numbers[GOOD]
    assert (number.agent_trunk_id, number.disabled_reason) == (None, "this account has no elevenlabs trunk")
    first = await make_trunk(client, ELEVENLABS)
    [number] = (await snapshot_of(api)).numbers[GOOD]
    assert (number.agent_trunk_id, number.disabled_reason) == (first, "it has not been provisioned yet")
    second = await make_trunk(client, ELEVENLABS, name="EL 2")
    assert "several" in (await snapshot_of(api)).numbers[GOOD][0].disabled_reason
    await client.patch(f"/v1/phone-numbers/{phone_id}", json={"config": {"engine_trunk_id": second}})
    assert (await snapshot_of(api)).numbers[GOOD][0].agent_trunk_id == second


async def test_a_test_trunk_outside_the_machine_is_not_dialled(client, api, edge):
    trunk_id = await make_trunk(client, config={"server": "sip.example.com"})
    phone_id = (await import_number(client, trunk_id)).json()["id"]
    assert "never leaves this machine" in (await until(client, phone_id, "inactive"))["status_reason"]
    [number] = (await snapshot_of(api)).numbers[GOOD]
    assert "never leaves this machine" in number.disabled_reason


async def test_readyz_names_what_is_missing(client, api, sandbox):
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert "no edge" in answer.json()["parts"]["edge"]["detail"]
    async with an_edge(api.database):
        assert await edges.wait_until_applied(api.database, 1, 5)
        answer = await client.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["parts"]) == {"database", "worker", "edge", "sandbox"}
