"""A trunk's health is what its server last showed, to an edge or to us; inside is not looked at."""

import asyncio
import socket
from datetime import timedelta

import msgspec
import pytest
from voxpria_routing.edge_api import Registration, TrunkNews, TrunkReport
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.providers import sip
from voxpria_server.trunks import health, jobs, queries

from server.tests.edge_client import NUMBER, connect
from server.tests.test_sip_client import SipServer, serve_udp

SANDBOX = {"name": "T", "provider": "generic", "config": {"server": "sip.test.voxpria.com"}}
RIGHT = {"username": "test_user", "password": "test_pass"}


async def until_health(client, trunk_id, status, seconds=90):
    async with asyncio.timeout(seconds):
        while True:
            found = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]
            if found["status"] == status:
                return found
            await asyncio.sleep(0.05)


async def make_due(api):
    """Let time pass, and the minute's job run."""
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE trunks SET health_next_at = now() - interval '1 s'")
    async with api.database.transaction() as conn:
        await jobs.defer(conn, "trunks:check-due", {"timestamp": 0}, queue="maintenance")


async def failures_once_not_due(api, seconds=90):
    """Return how often the one trunk has failed, once its next look lies ahead: the minute's own job looks too."""
    async with asyncio.timeout(seconds):
        while True:
            async with api.database.read() as conn:
                rows = await conn.exec_driver_sql("SELECT health_failures FROM trunks WHERE health_next_at > now()")
            if row := rows.one_or_none():
                return row.health_failures
            await asyncio.sleep(0.05)


async def test_it_follows_the_server(client, api, settings):
    trunk_id = (await client.post("/v1/sip/trunks", json=SANDBOX | {"credentials": RIGHT})).json()["id"]
    before = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()
    assert before["health"]["status"] == "unreachable"
    transport, _ = await serve_udp(SipServer(), settings.sandbox_address, settings.sip_port)
    await make_due(api)
    found = await until_health(client, trunk_id, "reachable")
    assert found["latency_ms"] > 0
    assert found["detail"] == "answered 200 OK"
    transport.close()
    await make_due(api)
    await until_health(client, trunk_id, "unreachable")
    after = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()
    assert after["updated_at"] == before["updated_at"]
    assert await failures_once_not_due(api) >= 1


async def test_a_server_that_begins_to_refuse_shows(client, api, settings):
    server = SipServer()
    transport, _ = await serve_udp(server, settings.sandbox_address, settings.sip_port)
    trunk_id = (await client.post("/v1/sip/trunks", json=SANDBOX | {"credentials": RIGHT})).json()["id"]
    server._script = lambda _: [("403 Forbidden",)]
    await make_due(api)
    assert "403" in (await until_health(client, trunk_id, "auth_failed"))["detail"]
    transport.close()


async def test_what_was_changed_meanwhile_is_not_overwritten(client, api):
    trunk_id = (await client.post("/v1/sip/trunks", json=SANDBOX | {"credentials": RIGHT})).json()["id"]
    async with api.database.transaction() as conn:
        before = await queries.find_of_job(conn, trunk_id)
    await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"name": "Other"})
    values = health.record(sip.Verdict("reachable", "long ago"), failures_before=0)
    async with api.database.transaction() as conn:
        await queries.set_health(conn, trunk_id, before.updated_at, values)
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]["status"] == "unreachable"


@pytest.mark.unit
def test_the_wait_grows_while_a_server_stays_away_and_has_a_bound():
    waits = []
    for failures in range(12):
        kept = health.record(sip.Verdict("unreachable", "gone"), failures_before=failures)
        waits.append((kept["health_next_at"] - kept["health_checked_at"]).total_seconds())
    assert 22 <= waits[0] <= 38
    assert all(45 <= wait <= 75 for wait in waits[1:2])
    assert max(waits) <= 1800 * 1.25
    kept = health.record(sip.Verdict("reachable", "back"), failures_before=12)
    assert (kept["health_failures"], kept["health_next_at"] > kept["health_checked_at"]) == (0, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "localhost", "0x7f.1"])
async def test_inside_is_not_probed(host):
    """Whether something listens there or not, the answer is the same."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        for transport in ("tcp", "tls", "udp"):
            verdict = await sip.ask_options(sip.Server(host, listening.getsockname()[1], transport), 1)
            assert verdict.status == "unreachable"
            assert "private, local or reserved" in verdict.detail, verdict


async def test_a_live_trunk_inside_is_kept_and_not_gone_to(api):
    live = await api.client(await api.new_key(mode="live"))
    api.app.state.settings = api.app.state.settings.model_copy(update={"allow_private_trunks": False})
    body = {"name": "T", "provider": "generic", "config": {"server": "127.0.0.1", "port": 9, "transport": "tcp"}}
    answer = await live.post("/v1/sip/trunks", json=body)
    assert answer.status_code == 201, answer.text
    found = (await live.get(f"/v1/sip/trunks/{answer.json()['id']}")).json()["health"]
    assert "private, local or reserved" in found["detail"]


def report(trunk_id, **changes):
    told = {"server": "sip.test.voxpria.com", "port": 5060, "transport": "udp", "status": "reachable"}
    told |= {"detail": "answered 200 OK", "latency_ms": 12.5, "checked_at": utc_now()}
    return TrunkReport(trunk_id=trunk_id, **{**told, **changes})


async def tell(edge, *reports, edge_id="edge_1", registrations=None):
    news = TrunkNews(edge_id=edge_id, reports=reports, registrations=registrations or {})
    answer = await edge.post("trunks", news)
    assert answer.status_code == 204, answer.text


async def health_of(client, trunk_id):
    return (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["health"]


async def test_what_an_edge_found_is_the_health_and_nobody_asks_besides(client, api):
    edge = await connect(api)
    trunk_id = (await client.post("/v1/sip/trunks", json=SANDBOX | {"credentials": RIGHT})).json()["id"]
    await tell(edge, report(trunk_id), report("trunk_gone"))
    found = await health_of(client, trunk_id)
    assert (found["status"], found["detail"], found["latency_ms"]) == ("reachable", "answered 200 OK", 12.5)
    async with api.database.read() as conn:
        assert await queries.due_of_job(conn, 10) == []
    await tell(edge, report(trunk_id, status="unreachable", detail="It is gone.", latency_ms=None))
    assert (await health_of(client, trunk_id))["detail"] == "It is gone."
    # an edge that sees it better does not hide that; one that speaks of another server is late
    await tell(edge, report(trunk_id), edge_id="edge_2")
    await tell(edge, report(trunk_id, port=5070))
    assert (await health_of(client, trunk_id))["status"] == "unreachable"
    await tell(edge, report(trunk_id))
    assert (await health_of(client, trunk_id))["status"] == "reachable"
    await tell(edge, report(trunk_id, status="auth_failed", detail="answered 403"), edge_id="edge_2")
    assert (await health_of(client, trunk_id))["status"] == "auth_failed"


async def test_registrations_show_on_the_trunk_in_the_doctor_and_in_a_route_test(client, api):
    edge = await connect(api)
    body = SANDBOX | {"credentials": RIGHT, "config": SANDBOX["config"] | {"register": True}}
    trunk_id = (await client.post("/v1/sip/trunks", json=body)).json()["id"]
    number = {"trunk_id": trunk_id, "phone_number": NUMBER}
    assert (await client.post("/v1/phone-numbers/import", json=number)).status_code == 201
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["registrations"] == []

    async def doctors_step():
        steps = (await client.post(f"/v1/sip/trunks/{trunk_id}/test")).json()["steps"]
        assert steps[-1]["name"] == "register"
        return steps[-1]

    assert (await doctors_step())["status"] == "failed"
    until = utc_now().replace(microsecond=0) + timedelta(minutes=5)
    good = Registration(status="registered", checked_at=utc_now(), expires_at=until, sip_code=200)
    await tell(edge, registrations={trunk_id: good, "trunk_gone": good})
    [shown] = (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["registrations"]
    assert (shown["edge_id"], shown["status"], shown["expires_at"]) == ("edge_1", "registered", iso(until))
    assert (await doctors_step())["status"] == "ok"

    bad = Registration(
        status="failed", checked_at=utc_now(), sip_code=403, detail="It answered 403.", mend="Check the password."
    )
    await tell(edge, registrations={trunk_id: bad})
    step = await doctors_step()
    assert (step["status"], step["mend"]) == ("failed", "Check the password.")
    assert "It answered 403." in step["detail"]
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE phone_numbers SET is_routed = true, status = 'active'")
    asked = {"to": NUMBER, "source_address": "127.0.0.3"}
    tried = (await client.post("/v1/sip/route-test", json=asked)).json()["explanation"]["tried"]
    assert any("It answered 403." in line for line in tried), tried
    assert any("health of trunk" in line for line in tried), tried

    await tell(edge, registrations={trunk_id: msgspec.structs.replace(good, expires_at=utc_now())})
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["registrations"][0]["status"] == "lapsed"
    await tell(edge, registrations={trunk_id: None})
    assert (await client.get(f"/v1/sip/trunks/{trunk_id}")).json()["registrations"] == []
    await client.delete(f"/v1/sip/trunks/{trunk_id}?force=true")
