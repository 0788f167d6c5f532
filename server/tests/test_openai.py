"""OpenAI trunks: provisioning against the sandbox's stateful fake, and calls that ring there."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from aiohttp import web
from voxpria_sandbox.http import openai as openai_http
from voxpria_sandbox.openai import EndpointCreate, OpenAI, RingingCall
from voxpria_server.accounts import service as account_rules
from voxpria_server.calls.models import calls
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.jobs import Retry
from voxpria_server.provider_hooks import jobs as hook_jobs
from voxpria_server.provider_hooks.scribe import Scribe
from voxpria_server.trunks import jobs as trunk_jobs
from voxpria_server.trunks.service import hook_secrets

from server.tests.test_numbers_api import an_edge, import_number, until

CREDENTIALS = {"project_id": "proj_abc123", "api_key": "sk-proj-xyz789", "webhook_secret": "whsec_def456"}
TRUNK = {"name": "O", "provider": "openai", "credentials": CREDENTIALS}
NUMBER = "+15555550100"


@pytest.fixture
async def fake(settings):
    """The sandbox's OpenAI, on the address where the server looks for it."""
    openai = OpenAI(settings.data_dir / "openai.json", "http://127.0.0.1:9")
    app = web.Application()
    app.add_routes(openai_http.routes(openai))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    yield openai
    await runner.cleanup()


@pytest.fixture
async def edge(api):
    async with an_edge(api.database):
        yield


async def make_trunk(client, **credentials) -> str:
    answer = await client.post("/v1/sip/trunks", json=TRUNK | {"credentials": CREDENTIALS | credentials})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_provisioning_arms_the_webhook_and_makes_the_numbers_active(client, fake, edge, settings):
    trunk_id = await make_trunk(client)
    early = (await import_number(client, trunk_id, NUMBER)).json()
    assert (early["status"], early["engine"]) == ("provisioning", "openai")
    answer = await client.post(f"/v1/phone-numbers/{early['id']}/provision")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["success"], body["status"], body["webhook_is_registered"]) == (True, "provisioned", True)
    assert body["webhook_url"] == f"{settings.public_url}/hooks/openai/{trunk_id}"
    [endpoint] = fake.endpoints("proj_abc123")
    assert (endpoint.url, endpoint.event_types) == (body["webhook_url"], ["realtime.call.incoming"])
    row = (await client.get(f"/v1/phone-numbers/{early['id']}")).json()
    assert (row["status"], row["capabilities"]["inbound"]) == ("active", True)
    trunk = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()
    assert (trunk["webhook_url"], trunk["provisioned_at"] is not None) == (body["webhook_url"], True)
    later = (await import_number(client, trunk_id, "+15555550101")).json()
    await until(client, later["id"], "active")
    assert (await client.post(f"/v1/sip/trunks/{trunk_id}/provision")).status_code == 200
    assert len(fake.endpoints("proj_abc123")) == 1


async def test_a_refusal_says_why(client, api, fake):
    await fake.authorise("sk-taken", "proj_other")
    for number, (key, reason) in enumerate((("sk-invalid-1", "Incorrect API key"), ("sk-taken", "should match"))):
        body = TRUNK | {"name": f"O{number}", "credentials": CREDENTIALS | {"api_key": key}}
        trunk_id = (await client.post("/v1/sip/trunks", json=body)).json()["id"]
        answer = await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["details"]["provider"]) == (
            500,
            "provisioning_failed",
            "openai",
        )
        assert reason in error["details"]["reason"]
        assert key not in answer.text
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["provisioned_at"] is None


async def test_a_key_that_may_not_manage_webhooks_leaves_that_to_its_owner(client, fake):
    trunk_id = await make_trunk(client, api_key="sk-restricted-1")
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    assert (answer.status_code, answer.json()["webhook_is_registered"]) == (200, False)


async def test_who_provisions_a_trunk_at_once_leaves_the_secret_that_openai_signs_with(
    client, api, fake, edge, settings
):
    trunk_id = await make_trunk(client)
    answers = await asyncio.gather(*(client.post(f"/v1/sip/trunks/{trunk_id}/provision") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    async with api.database.read() as conn:
        row = (await conn.execute(sa.text("SELECT * FROM trunks"))).one()
    kept, _ = hook_secrets(api.app.state.sealer, row)
    assert kept in {endpoint.secret for endpoint in fake.endpoints("proj_abc123")}


async def test_a_secret_lost_between_openai_and_us_is_rolled(client, api, fake):
    """As after a crash: OpenAI made the webhook, and we did not keep its secret."""
    trunk_id = await make_trunk(client)
    await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    [before] = fake.endpoints("proj_abc123")
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE trunks SET sealed_hook_secret = NULL, provisioned_at = NULL")
    await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    [after] = fake.endpoints("proj_abc123")
    assert (after.id, after.secret != before.secret, after.old_secret) == (before.id, True, before.secret)
    answer = await send(client, trunk_id, event("rtc_1"), after.secret)
    assert answer.status_code == 200


async def test_reprovision_all_counts_openai_numbers_too(client, fake, edge):
    trunk_id = await make_trunk(client)
    for number in (NUMBER, "+15555550101"):
        await import_number(client, trunk_id, number)
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/reprovision-all")
    assert answer.json() == {"success": True, "total_numbers": 2, "provisioned": 2, "failed": 0, "provisioning": 0}
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"credentials": {"api_key": "sk-invalid"}})
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/reprovision-all")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "provisioning_failed")


async def until_webhooks(fake: OpenAI, project: str, count: int) -> None:
    async with asyncio.timeout(90):
        while len(fake.endpoints(project)) != count:
            await asyncio.sleep(0.05)


async def test_a_trunk_that_is_gone_leaves_no_webhook_of_ours_at_openai(client, api, fake, monkeypatch):
    trunk_id = await make_trunk(client)
    url = (await client.post(f"/v1/sip/trunks/{trunk_id}/provision")).json()["webhook_url"]
    theirs = EndpointCreate(name="Made by hand", url=url, event_types=["realtime.call.incoming"])
    await fake.add_endpoint("proj_abc123", theirs)
    remove, failures = fake.remove_endpoint, iter([ConnectionError, OSError])

    async def fail_at_first(endpoint):
        for failure in failures:
            raise failure
        await remove(endpoint)

    monkeypatch.setattr(fake, "remove_endpoint", fail_at_first)
    monkeypatch.setattr(trunk_jobs.disarm, "retry_strategy", Retry((0.1, 0.1, 0.1)))
    assert (await client.delete(f"/v1/sip/trunks/{trunk_id}")).status_code == 200
    await until_webhooks(fake, "proj_abc123", 1)
    assert [endpoint.name for endpoint in fake.endpoints("proj_abc123")] == ["Made by hand"]
    async with asyncio.timeout(90):
        while await jobs_of(api, "trunks:disarm"):  # done with: nothing of the credentials is left
            await asyncio.sleep(0.05)


async def test_a_trunk_that_moves_to_another_project_takes_its_webhook_along(client, api, fake):
    trunk_id = await make_trunk(client)
    await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    moved = {"project_id": "proj_next", "api_key": "sk-proj-next"}
    assert (await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"credentials": moved})).status_code == 200
    await until_webhooks(fake, "proj_abc123", 0)
    unknown_yet = await send(client, trunk_id, event("rtc_0"), CREDENTIALS["webhook_secret"])
    assert unknown_yet.status_code == 401
    await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    [endpoint] = fake.endpoints("proj_next")
    assert (await send(client, trunk_id, event("rtc_1"), endpoint.secret)).status_code == 200
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"credentials": {"api_key": "sk-proj-next"}, "name": "N"})
    assert await jobs_of(api, "trunks:disarm") == []


async def test_a_key_that_opens_nothing_any_more_ends_it(client, api, fake):
    trunk_id = await make_trunk(client)
    await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    fake._keys.clear()
    await fake.authorise(CREDENTIALS["api_key"], "proj_of_somebody_else")
    assert (await client.delete(f"/v1/sip/trunks/{trunk_id}")).status_code == 200
    async with asyncio.timeout(90):
        while await jobs_of(api, "trunks:disarm"):
            await asyncio.sleep(0.05)
    assert len(fake.endpoints("proj_abc123")) == 1


async def jobs_of(api, task: str) -> list[str]:
    async with api.database.read() as conn:
        statement = sa.text("SELECT status::text FROM procrastinate_jobs WHERE task_name = :task")
        return list((await conn.execute(statement, {"task": task})).scalars())


def event(call_id: str, *, at: float | None = None, **headers: str) -> bytes:
    sip_headers = [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]
    data = {"call_id": call_id, "sip_headers": sip_headers}
    return json.dumps(
        {"id": "evt_1", "type": "realtime.call.incoming", "created_at": int(at or time.time()), "data": data}
    ).encode()


async def send(client, trunk_id, body, secret, *, message_id="wh_1", at=None):
    at = str(int(at or time.time()))
    encoded = secret.removeprefix("whsec_")
    key = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    digest = hmac.new(key, f"{message_id}.{at}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    headers = {"webhook-id": message_id, "webhook-timestamp": at, "webhook-signature": signature}
    return await client.post(f"/hooks/openai/{trunk_id}", content=body, headers=headers)


async def provisioned(client) -> str:
    trunk_id = await make_trunk(client)
    answer = await client.post(f"/v1/sip/trunks/{trunk_id}/provision")
    assert answer.status_code == 200, answer.text
    return trunk_id


async def open_call(api, number_id: str, **changes) -> str:
    """Have a call going on, as the edge reports it."""
    values = {
        "id": new_id("call"),
        "account_id": "acct_sandbox",
        "mode": "test",
        "phone_number": NUMBER,
        "direction": "inbound",
        "from_number": "+13035550000",
        "to_number": NUMBER,
        "number_id": number_id,
        "status": "in-progress",
        "started_at": utc_now(),
        "duration_seconds": 0,
        "explanation": {"summary": "", "tried": [], "nearest": None, "mend": None},
        "max_duration_seconds": 600,
        "recording": "none",
        "edge_id": "edge_1",
        "sip_call_id": new_id("sip"),
        "updated_at": utc_now(),
    } | changes
    async with api.database.transaction() as conn:
        await conn.execute(calls.insert().values(**values))
    return values["id"]


def ring(fake: OpenAI, call_id: str) -> RingingCall:
    call = RingingCall(call_id, "proj_abc123", [])
    fake.calls.append(call)
    return call


async def decided(call: RingingCall) -> int | None:
    async with asyncio.timeout(90):
        return await call.decided


async def row_of(api, call_id: str, wanted: str, **columns: object):
    async with asyncio.timeout(90):
        while True:
            async with api.database.read() as conn:
                statement = f"SELECT * FROM provider_calls WHERE provider_call_id = '{call_id}'"
                row = (await conn.exec_driver_sql(statement)).one()
            if row.status == wanted and columns.items() <= row._mapping.items():
                return row
            await asyncio.sleep(0.05)


async def test_a_call_through_our_edge_is_accepted_with_its_numbers_agent(client, api, fake):
    trunk_id = await provisioned(client)
    agent = {"name": "A", "engine": "openai", "instructions": "Be kind.", "voice": "marin", "model": "gpt-realtime-2"}
    agent_id = (await client.post("/v1/agents", json=agent)).json()["id"]
    config = {"first_message": "Good day", "language": "de"}
    number = (await import_number(client, trunk_id, NUMBER, agent_id=agent_id, config=config)).json()
    [endpoint] = fake.endpoints("proj_abc123")
    call_id = await open_call(api, number["id"])
    ringing = ring(fake, "rtc_1")
    body = event("rtc_1", X_VoxPria_Call_Id=call_id, To=f"<sip:{NUMBER}@x>", Authorization="secret")
    assert (await send(client, trunk_id, body, endpoint.secret)).json() == {"received": True}
    assert await decided(ringing) is None
    assert ringing.session["type"] == "realtime"
    assert (ringing.session["model"], ringing.session["audio"]["output"]) == ("gpt-realtime-2", {"voice": "marin"})
    assert ringing.is_transcribed
    for words in ("Be kind.", "Good day", "tag de"):
        assert words in ringing.session["instructions"]
    row = await row_of(api, "rtc_1", "accepted")
    assert (row.call_id, "secret" in str(row.sip_headers)) == (call_id, False)


async def test_an_event_is_taken_once(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER)).json()
    call_id = await open_call(api, number["id"])
    ringing = ring(fake, "rtc_1")
    body = event("rtc_1", X_VoxPria_Call_Id=call_id)
    answers = await asyncio.gather(
        *(send(client, trunk_id, body, endpoint.secret, message_id=f"wh_{i % 2}") for i in range(6))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert await decided(ringing) is None
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM provider_calls")).scalar_one() == 1


async def test_an_event_of_a_call_that_rings_no_more_is_let_be(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    late = event("rtc_1", at=time.time() - 90)
    assert (await send(client, trunk_id, late, endpoint.secret)).status_code == 200
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM provider_calls")).scalar_one() == 0


async def test_a_call_whose_agent_openai_does_not_take_is_refused_at_once(client, api, fake):
    trunk_id = await provisioned(client)
    agent = {"name": "A", "engine": "openai", "model": "gpt-unheard-of"}
    agent_id = (await client.post("/v1/agents", json=agent)).json()["id"]
    number = (await import_number(client, trunk_id, NUMBER, agent_id=agent_id)).json()
    [endpoint] = fake.endpoints("proj_abc123")
    ringing, call_id = ring(fake, "rtc_1"), await open_call(api, number["id"])
    await send(client, trunk_id, event("rtc_1", X_VoxPria_Call_Id=call_id), endpoint.secret)
    assert await decided(ringing) == 480
    assert "gpt-unheard-of" in (await row_of(api, "rtc_1", "failed")).reason


async def test_a_call_that_the_edge_reports_late_is_waited_for(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER)).json()
    ringing, call_id = ring(fake, "rtc_1"), new_id("call")
    await send(client, trunk_id, event("rtc_1", X_VoxPria_Call_Id=call_id), endpoint.secret)
    await asyncio.sleep(0.5)
    assert not ringing.decided.done()
    await open_call(api, number["id"], id=call_id)
    assert await decided(ringing) is None


async def test_a_call_that_no_edge_reports_is_rejected_unless_one_has_more_to_tell(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER)).json()
    calls_of_edge = [(ring(fake, f"rtc_{n}"), new_id("call")) for n in range(2)]
    async with an_edge(api.database, unsent_events=5000):
        (waiting, call_id), _ = calls_of_edge
        await send(client, trunk_id, event("rtc_0", X_VoxPria_Call_Id=call_id), endpoint.secret)
        await until_tried(api, 4)  # the waits before add up to a second
        assert not waiting.decided.done()
        await open_call(api, number["id"], id=call_id)
        assert await decided(waiting) is None
    async with an_edge(api.database):
        _, (stranger, call_id) = calls_of_edge
        body = event("rtc_1", X_VoxPria_Call_Id=call_id)
        await send(client, trunk_id, body, endpoint.secret, message_id="wh_2")
        assert await decided(stranger) == 403
        await row_of(api, "rtc_1", "rejected")
        for seconds, is_on_its_way in ((0.5, True), (1.5, False)):
            assert await hook_jobs.may_come(api.database, timedelta(seconds=seconds)) is is_on_its_way


async def until_tried(api, times: int) -> None:
    statement = sa.text("SELECT max(attempts) FROM procrastinate_jobs WHERE task_name = 'provider-hooks:answer'")
    async with asyncio.timeout(90):
        while True:
            async with api.database.read() as conn:
                if ((await conn.execute(statement)).scalar_one() or 0) >= times:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("first_message", ["Good evening!", None])
async def test_an_agent_with_a_first_message_is_told_to_speak_first(client, api, fake, first_message):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER, config={"first_message": first_message})).json()
    ringing, call_id = ring(fake, "rtc_1"), await open_call(api, number["id"])
    await send(client, trunk_id, event("rtc_1", X_VoxPria_Call_Id=call_id), endpoint.secret)
    assert await decided(ringing) is None
    await attended(ringing)
    if first_message:
        async with asyncio.timeout(90):
            await ringing.greeted.wait()
    else:
        await row_of(api, "rtc_1", "accepted", speaks_first=False)
        assert not ringing.greeted.is_set()


async def attended(call: RingingCall, sockets: int = 1) -> None:
    async with asyncio.timeout(90):
        while len(call.sockets) != sockets:
            await asyncio.sleep(0.02)


def say(call: RingingCall, speaker: str, item_id: str, words: str) -> None:
    if speaker == "agent":
        call.tell("response.output_audio_transcript.done", item_id=item_id, transcript=words)
    else:
        call.tell("conversation.item.input_audio_transcription.completed", item_id=item_id, transcript=words)


async def test_what_is_said_becomes_the_calls_transcript_whichever_process_hears_it(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER)).json()
    ringing, call_id = ring(fake, "rtc_1"), await open_call(api, number["id"], answered_at=utc_now())
    await send(client, trunk_id, event("rtc_1", X_VoxPria_Call_Id=call_id), endpoint.secret)
    await attended(ringing)
    say(ringing, "agent", "item_1", "Good evening! \U0001f600")
    ringing.tell("conversation.item.input_audio_transcription.failed", item_id="item_2", error={"code": "no_access"})
    say(ringing, "caller", "item_3", "Hello,\x00 it is me.")
    async with asyncio.timeout(90):
        while await turns_of(api) != 2:
            await asyncio.sleep(0.02)
    scribe = Scribe(api.database, api.app.state.sealer, api.app.state.providers["openai"])
    await api.app.state.scribe.stop()
    await attended(ringing, 0)
    scribe.start()
    try:
        await attended(ringing)
        say(ringing, "caller", "item_3", "Hello, it is me.")
        say(ringing, "agent", "item_4", "One moment.")
        ringing.end()
        record = await until_transcribed(client, call_id)
    finally:
        await scribe.stop()
    said = [(segment["speaker"], segment["text"]) for segment in record["transcript"]["segments"]]
    assert said == [("agent", "Good evening! \U0001f600"), ("caller", "Hello, it is me."), ("agent", "One moment.")]
    assert await turns_of(api) == 0
    assert (await row_of(api, "rtc_1", "accepted")).heard_until is None


async def until_transcribed(client, call_id: str) -> dict:
    async with asyncio.timeout(90):
        while not (record := (await client.get(f"/v1/calls/{call_id}")).json())["transcript"]:
            await asyncio.sleep(0.05)
    return record


async def turns_of(api) -> int:
    async with api.database.read() as conn:
        return (await conn.exec_driver_sql("SELECT count(*) FROM provider_call_turns")).scalar_one()


@pytest.mark.parametrize("claim", ["none", "another account's", "over"])
async def test_a_call_that_is_not_ours_is_rejected(client, api, fake, edge, claim):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    number = (await import_number(client, trunk_id, NUMBER)).json()
    headers = {"To": f"<sip:{NUMBER}@x>"}
    if claim != "none":
        async with api.database.transaction() as conn:
            other = (await account_rules.create(conn, "Other")).id
        changes = {"account_id": other} if claim == "another account's" else {"status": "completed"}
        headers["X_VoxPria_Call_Id"] = await open_call(api, number["id"], **changes)
    ringing = ring(fake, "rtc_1")
    await send(client, trunk_id, event("rtc_1", **headers), endpoint.secret)
    assert await decided(ringing) == 403
    assert "our edge" in (await row_of(api, "rtc_1", "rejected")).reason


async def test_what_is_not_signed_by_openai_is_refused(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    body, now = event("rtc_1"), time.time()
    unknown = await send(client, "trunk_none", body, endpoint.secret)
    for answer in (
        unknown,
        await send(client, trunk_id, body, "whsec_d3Jvbmc="),
        await send(client, trunk_id, body, endpoint.secret, at=now - 400),
        await send(client, trunk_id, body, endpoint.secret, at=now + 400),
        await client.post(f"/hooks/openai/{trunk_id}", content=body),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_webhook_signature")
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM provider_calls")).scalar_one() == 0
    assert (await send(client, trunk_id, body, CREDENTIALS["webhook_secret"])).status_code == 200


async def test_signed_nonsense_is_refused_and_other_events_are_let_be(client, api, fake):
    trunk_id = await provisioned(client)
    [endpoint] = fake.endpoints("proj_abc123")
    for body, status in (
        (b"{", 401),  # the library that checks signatures reads the JSON too
        (b"[]", 400),
        (b'{"type": "realtime.call.incoming"}', 400),
        (event("../../models"), 400),
        (event("a\0b"), 400),
        (b'{"type": "batch.completed", "id": "evt_2", "data": {"id": "b"}}', 200),
    ):
        assert (await send(client, trunk_id, body, endpoint.secret)).status_code == status, body
    async with api.database.read() as conn:
        assert (await conn.exec_driver_sql("SELECT count(*) FROM provider_calls")).scalar_one() == 0


async def test_a_trunk_that_is_not_provisioned_takes_no_events(client, fake):
    trunk_id = await make_trunk(client)
    assert (await send(client, trunk_id, event("rtc_1"), CREDENTIALS["webhook_secret"])).status_code == 401
