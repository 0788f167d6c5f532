"""The routes' version and who has it."""

import asyncio
import json

import pytest
from voxpria_routing.edge_api import Part, Status
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import DatabaseUnavailableError
from voxpria_server.numbers.service import count_calls
from voxpria_server.routing import edges, version

from server.tests.edge_client import whole_snapshot

TRUNK = {"name": "T", "provider": "generic", "credentials": {}, "config": {"server": "127.0.0.1", "port": 9}}


async def _version(database) -> int:
    async with database.read() as conn:
        return await version.current(conn)


async def _acknowledge(database, edge_id: str, applied: int) -> None:
    async with database.transaction() as conn:
        await edges.acknowledge(conn, edge_id, applied)


async def test_every_change_of_a_route_raises_the_version_once_and_nothing_else_does(client, api):
    async def raised(change) -> int:
        before = await _version(api.database)
        result = await change
        assert result.is_success, result.text
        ids.append(result.json().get("id"))
        return await _version(api.database) - before

    ids: list[str] = []
    assert await raised(client.post("/v1/sip/trunks", json=TRUNK)) == 1
    trunk_path = f"/v1/sip/trunks/{ids[-1]}"
    number = {"phone_number": "+12125551234", "trunk_id": ids[-1], "engine": "elevenlabs"}
    assert await raised(client.post("/v1/phone-numbers/import", json=number)) == 1
    phone_id = ids[-1]
    number_path = f"/v1/phone-numbers/{phone_id}"
    assert await raised(client.patch(number_path, json={"config": {"max_duration": 5}})) == 1
    assert await raised(client.patch(trunk_path, json={"config": {"record": True}})) == 1
    assert await raised(client.post("/v1/agents", json={"name": "A", "engine": "openai"})) == 1
    assert await raised(client.patch(f"/v1/agents/{ids[-1]}", json={"instructions": "be kind"})) == 0
    assert await raised(client.get(number_path)) == 0
    before = await _version(api.database)
    async with api.database.transaction() as conn:
        await count_calls(conn, [(phone_id, 10, utc_now())])
    assert await _version(api.database) == before
    assert await raised(client.delete(f"{trunk_path}?force=true")) == 1


async def test_a_change_rolled_back_raises_nothing(client, api):
    trunk_id = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    before = await _version(api.database)
    async with api.database.transaction() as conn:
        nested = await conn.begin_nested()
        await conn.exec_driver_sql(f"UPDATE trunks SET name = 'x' WHERE id = '{trunk_id}'")
        await nested.rollback()
    assert await _version(api.database) == before


async def test_writers_in_opposite_order_do_not_deadlock_over_the_version(client, api):
    ids = [(await client.post("/v1/sip/trunks", json=TRUNK | {"name": n})).json()["id"] for n in "ab"]
    before = await _version(api.database)
    first_done = [asyncio.Event(), asyncio.Event()]

    async def write(mine: int) -> None:
        async with api.database.transaction() as conn:
            await conn.exec_driver_sql(f"UPDATE trunks SET name = name || '1' WHERE id = '{ids[mine]}'")
            first_done[mine].set()
            await first_done[1 - mine].wait()
            await conn.exec_driver_sql(
                "INSERT INTO agents SELECT 'agent_' || gen_random_uuid(), account_id, mode,"
                " 'A', 'openai', null, null, null, null, null, now(), now() FROM accounts"
                " CROSS JOIN (SELECT 'test' AS mode) m CROSS JOIN"
                " (SELECT id AS account_id FROM accounts) a"
            )

    await asyncio.gather(write(0), write(1))
    assert await _version(api.database) == before + 2


async def test_waiters_share_one_listener_and_all_wake(database):
    seen = await _version(database)
    waiting = [asyncio.create_task(version.wait_for(database, seen, 5)) for _ in range(20)]
    await asyncio.sleep(0)
    async with database.transaction() as conn:
        await version.bump(conn)
    async with asyncio.timeout(2):
        assert await asyncio.gather(*waiting) == [seen + 1] * 20


async def test_waiting_ends_with_the_same_version_when_nothing_changes(database):
    seen = await _version(database)
    assert await version.wait_for(database, seen, 0.1) == seen
    assert await version.wait_for(database, seen + 7, 5) == seen


async def test_an_edge_counts_while_it_is_fresh(database):
    assert await edges.wait_until_applied(database, 1, 0.05) is False
    await _acknowledge(database, "edge_1", 5)
    assert await edges.wait_until_applied(database, 5, 0.05) is True
    assert await edges.wait_until_applied(database, 6, 0.05) is False
    await _acknowledge(database, "edge_2", 4)
    assert await edges.wait_until_applied(database, 5, 0.05) is False
    waiting = asyncio.create_task(edges.wait_until_applied(database, 5, 5))
    await _acknowledge(database, "edge_2", 5)
    async with asyncio.timeout(2):
        assert await waiting is True
    async with database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE edges SET seen_at = now() - interval '11 s' WHERE id = 'edge_2'")
    await _acknowledge(database, "edge_1", 6)
    assert await edges.wait_until_applied(database, 6, 0.05) is True


async def test_a_report_is_kept_whole(database):
    parts = {"kamailio": Part(is_up=False, detail="exited")}
    async with database.transaction() as conn:
        await edges.report(
            conn, Status(edge_id="edge_1", applied_version=3, parts=parts, open_calls=2, unsent_events=1)
        )
        [edge] = await edges.fresh(conn)
    assert (edge.applied_version, edge.open_calls, edge.unsent_events) == (3, 2, 1)
    assert edge.parts == {"kamailio": {"is_up": False, "detail": "exited"}}


async def test_credentials_that_can_not_be_opened_disable_their_numbers_only(client, api):
    trunk_id = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    other = (await client.post("/v1/sip/trunks", json=TRUNK | {"name": "U"})).json()["id"]
    for number, trunk in (("+12125551234", trunk_id), ("+12125551235", other)):
        body = {"phone_number": number, "trunk_id": trunk}
        assert (await client.post("/v1/phone-numbers/import", json=body)).status_code == 201
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql(f"UPDATE trunks SET sealed_credentials = 'broken' WHERE id = '{trunk_id}'")
        built = await whole_snapshot(conn, api.app.state.settings, api.app.state.sealer)
    assert "can't be opened" in str(built.trunks[trunk_id].barred_reason)
    assert built.trunks[other].barred_reason is None
    answer = await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"name": "V"})
    assert answer.json()["error"]["code"] == "missing_required_field"
    answer = await client.patch(f"/v1/sip/trunks/{trunk_id}", json={"credentials": {"username": "u", "password": "p"}})
    assert answer.status_code == 200, json.dumps(answer.json())


async def test_listening_survives_the_databases_restart(own_cluster):
    from voxpria_server.kit.db import Database
    from voxpria_server.migrations import migrate

    migrate(own_cluster.url("postgres"))
    database = Database(own_cluster.url("postgres"))
    with database.listener.ear(version.CHANNEL) as ear:
        assert await ear.wait(5)
        await asyncio.to_thread(own_cluster.stop)
        with pytest.raises(DatabaseUnavailableError):
            await database.ping()
        await asyncio.to_thread(own_cluster.start)
        assert await ear.wait(10)
        async with database.transaction() as conn:
            await version.bump(conn)
        assert await ear.wait(5)
    await database.close()
