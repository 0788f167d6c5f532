"""The name of an agent at ElevenLabs is what ElevenLabs says, asked once an hour; the fake there is the sandbox's."""

import pytest
from aiohttp import web
from voxpria_sandbox.elevenlabs_agents import AgentCreate, AgentStore
from voxpria_sandbox.http import elevenlabs_agents

from server.tests.test_numbers_api import ELEVENLABS, GENERIC, import_number, make_trunk


class Counted(AgentStore):
    """Counts what it is asked for."""

    asked = 0

    def get(self, agent_id):
        self.asked += 1
        return super().get(agent_id)


@pytest.fixture
async def store(settings):
    store = Counted(settings.data_dir / "agents.json")
    app = web.Application()
    app.add_routes(elevenlabs_agents.routes(store))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    store.go_away = runner.cleanup
    yield store
    await runner.cleanup()


async def name_of(client, phone_id):
    return (await client.get(f"/v1/phone-numbers/{phone_id}")).json()["agent_name"]


async def test_it_is_looked_up_once_and_kept(client, api, store):
    agent = await store.add(AgentCreate(name="Customer Support Agent", conversation_config={}))
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, agent_id=agent.agent_id)).json()["id"]
    for _ in range(3):
        assert await name_of(client, phone_id) == "Customer Support Agent"
    assert store.asked == 1
    await store.remove(agent)
    assert await name_of(client, phone_id) == "Customer Support Agent"
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE provider_agents SET looked_up_at = now() - interval '2 hours'")
    assert await name_of(client, phone_id) is None


async def test_while_elevenlabs_is_away_the_last_name_stands(client, api, store):
    agent = await store.add(AgentCreate(name="Support", conversation_config={}))
    carrier, _ = await make_trunk(client, GENERIC), await make_trunk(client, ELEVENLABS)
    number = await import_number(client, carrier, agent_id=agent.agent_id, engine="elevenlabs")
    phone_id = number.json()["id"]
    assert await name_of(client, phone_id) == "Support"
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql("UPDATE provider_agents SET looked_up_at = now() - interval '2 hours'")
    await store.go_away()
    assert await name_of(client, phone_id) == "Support"


async def test_nothing_is_made_up(client, api, store):
    trunk_id = await make_trunk(client, ELEVENLABS)
    phone_id = (await import_number(client, trunk_id, agent_id="agent_../../x?y#z")).json()["id"]
    assert await name_of(client, phone_id) is None
    live = await api.client(await api.new_key(mode="live"))
    trunk_id = await make_trunk(live, ELEVENLABS, config={"server": "127.0.0.1", "port": 9, "transport": "tcp"})
    phone_id = (await import_number(live, trunk_id, "+12125551234", agent_id="agent_x")).json()["id"]
    assert await name_of(live, phone_id) is None  # no api_key: there is nobody to ask


async def test_names_are_kept_for_each_account_alone(client, api, store):
    agent = await store.add(AgentCreate(name="Support", conversation_config={}))
    first = await import_number(client, await make_trunk(client, ELEVENLABS), agent_id=agent.agent_id)
    assert await name_of(client, first.json()["id"]) == "Support"
    other = await api.client(await api.new_key())
    second = await import_number(other, await make_trunk(other, ELEVENLABS), agent_id=agent.agent_id)
    assert await name_of(other, second.json()["id"]) == "Support"
    assert store.asked == 2
