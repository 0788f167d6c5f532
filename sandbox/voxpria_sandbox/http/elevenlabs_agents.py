"""The fake of ElevenLabs' agents API (`/elevenlabs/v1/convai/agents`), with its shapes and errors."""

from aiohttp import web

from voxpria_sandbox.elevenlabs_agents import AgentChange, AgentCreate, AgentStore, StoredAgent
from voxpria_sandbox.http import bodies
from voxpria_sandbox.http.elevenlabs import check_key, refuse

_PATH = "/elevenlabs/v1/convai/agents"


def routes(store: AgentStore) -> list[web.RouteDef]:
    """Return the routes."""
    api = _Agents(store)
    return [
        web.post(f"{_PATH}/create", api.add),
        web.get(_PATH, api.list_all),
        web.get(f"{_PATH}/{{id}}", api.show),
        web.patch(f"{_PATH}/{{id}}", api.change),
        web.delete(f"{_PATH}/{{id}}", api.remove),
    ]


class _Agents:
    def __init__(self, store: AgentStore) -> None:
        self._store = store

    async def add(self, request: web.Request) -> web.Response:
        check_key(request)
        agent = await self._store.add(await bodies.read(request, AgentCreate))
        if agent is None:
            raise refuse(web.HTTPBadRequest, "validation_error", "too_many_agents", "No more agents in the sandbox.")
        return web.json_response({"agent_id": agent.agent_id})

    async def list_all(self, request: web.Request) -> web.Response:
        check_key(request)
        agents = [agent.listed() for agent in self._store.all()]
        return web.json_response({"agents": agents, "next_cursor": None, "has_more": False})

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request).shown())

    async def change(self, request: web.Request) -> web.Response:
        agent = self._found(request)
        return web.json_response((await self._store.change(agent, await bodies.read(request, AgentChange))).shown())

    async def remove(self, request: web.Request) -> web.Response:
        await self._store.remove(self._found(request))
        return web.json_response({})

    def _found(self, request: web.Request) -> StoredAgent:
        check_key(request)
        agent = self._store.get(request.match_info["id"])
        if agent is None:
            raise refuse(web.HTTPNotFound, "not_found", "agent_not_found", "No agent with this id.")
        return agent
