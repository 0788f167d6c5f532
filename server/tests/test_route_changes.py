"""Changes of the routes since a version: applied one after the other they give what the whole snapshot says."""

import asyncio

import msgspec
import sqlalchemy as sa
from voxpria_routing import snapshot as wire
from voxpria_routing.table import Table
from voxpria_server.routing import snapshot, version

from server.tests.edge_client import TOKEN, whole_snapshot

CARRIER = {"provider": "generic", "credentials": {}, "config": {"server": "127.0.0.1", "port": 9}}
OPENAI = {
    "provider": "openai",
    "credentials": {"project_id": "proj_1", "api_key": "sk-1", "webhook_secret": "whsec_1"},
    "config": {"server": "127.0.0.1", "port": 9, "transport": "udp"},
}


class Follower:
    """A table that takes every change, compared with the whole each time."""

    def __init__(self, api) -> None:
        self.api, self.table = api, Table()

    async def _in_one_moment(self, build, *arguments):
        settings, sealer = self.api.app.state.settings, self.api.app.state.sealer
        async with self.api.database.transaction() as conn:
            await conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            return await build(conn, settings, sealer, *arguments)

    async def start(self) -> None:
        self.table = Table(await self._in_one_moment(whole_snapshot))

    async def follow(self) -> wire.Delta:
        delta = await self._in_one_moment(snapshot.build_delta, self.table.version)
        assert delta is not None
        self.table.apply(msgspec.json.decode(msgspec.json.encode(delta), type=wire.Delta))
        assert self.table.snapshot() == await self._in_one_moment(whole_snapshot)
        return delta


async def _made(client, path: str, body: dict) -> str:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def test_every_kind_of_change_leads_to_what_the_whole_says(client, api):
    follower = Follower(api)
    await follower.start()
    carrier = await _made(client, "/v1/sip/trunks", CARRIER | {"name": "Carrier"})
    await follower.follow()
    agent = await _made(client, "/v1/agents", {"name": "A", "engine": "openai", "language": "en"})
    body = {"trunk_id": carrier, "engine": "openai", "agent_id": agent}
    ids = [
        await _made(client, "/v1/phone-numbers/import", {**body, "phone_number": number})
        for number in ("+12125551234", "+12125551235")
    ]
    delta = await follower.follow()
    assert len(delta.numbers) == 2
    await client.patch(f"/v1/phone-numbers/{ids[0]}", json={"config": {"max_duration": 7}})
    delta = await follower.follow()
    assert [number.max_duration_seconds for number in delta.numbers] == [7]
    await client.patch(f"/v1/agents/{agent}", json={"language": "de"})
    delta = await follower.follow()
    assert [number.language for number in delta.numbers] == ["de", "de"]
    # a trunk of their engine comes and goes: their target with it
    engine = await _made(client, "/v1/sip/trunks", OPENAI | {"name": "Engine"})
    delta = await follower.follow()
    assert [number.agent_trunk_id for number in delta.numbers] == [engine, engine]
    await client.patch(f"/v1/sip/trunks/{engine}", json={"config": {"port": 10}})
    delta = await follower.follow()
    assert (list(delta.trunks), delta.numbers) == ([engine], ())
    assert (await client.delete(f"/v1/sip/trunks/{engine}?force=true")).status_code == 200
    await follower.follow()
    await client.delete(f"/v1/phone-numbers/{ids[0]}")
    delta = await follower.follow()
    assert delta.removed == (("+12125551234", ids[0]),)
    await client.delete(f"/v1/sip/trunks/{carrier}?force=true")
    await follower.follow()
    assert not follower.table.numbers


async def test_after_a_restore_no_edge_goes_on_from_what_it_took_before(api):
    """Edges may be ahead of the restored database, which may even have passed them before they ask again."""
    client, headers = await api.client(None), {"Authorization": f"Bearer {TOKEN}"}
    async with api.database.read() as conn:
        restored_to = await version.current(conn)
    async with api.database.transaction() as conn:
        leapt_to = await version.leap(conn)
    assert leapt_to > restored_to + 1_000_000
    for taken in (restored_to, restored_to + 5, restored_to + 100_000):
        answer = await client.get(f"/edge/v1/changes?edge_id=edge_1&after={taken}", headers=headers)
        assert answer.status_code == 410


async def test_only_a_whole_snapshot_leads_on_from_a_version_of_another_life(api):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    client = await api.client(None)
    async with api.database.transaction() as conn:
        await version.bump(conn)
    async with api.database.read() as conn:
        now_at = await version.current(conn)
    for after in (now_at - 1, now_at + 100):
        answer = await client.get(f"/edge/v1/changes?edge_id=edge_1&after={after}", headers=headers)
        assert answer.status_code == 410
    answer = await client.get(f"/edge/v1/changes?edge_id=edge_1&after={now_at}", headers=headers)
    assert answer.status_code == 304
    answer = await client.get("/edge/v1/changes?edge_id=edge_1&after=1")
    assert answer.status_code == 401


async def test_a_waiting_edge_hears_of_a_change_at_once(client, api):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with api.database.read() as conn:
        now_at = await version.current(conn)
    path = f"/edge/v1/changes?edge_id=edge_1&after={now_at}&wait_seconds=20"
    waiting = asyncio.create_task(client.get(path, headers=headers))
    trunk = await _made(client, "/v1/sip/trunks", CARRIER | {"name": "Carrier"})
    async with asyncio.timeout(10):
        delta = msgspec.json.decode((await waiting).content, type=wire.Delta)
    assert (delta.base, list(delta.trunks)) == (now_at, [trunk])
