"""The fake of OpenAI: a call to a project rings until it is accepted over HTTP, as a signed webhook told."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from voxpria_sandbox.accounts import OPENAI_HOST
from voxpria_sandbox.http import openai as openai_http

from sandbox.tests.conftest import AGENT, World

KEYS = {"Authorization": "Bearer sk-1", "OpenAI-Project": "proj_1"}
INCOMING = ["realtime.call.incoming"]


class Client:
    """The fake's API, and a receiver of its webhooks."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self._http, self.base = http, base
        self.events: asyncio.Queue[tuple[dict[str, Any], dict[str, str], bytes]] = asyncio.Queue()

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        async with self._http.request(method, f"{self.base}/openai/v1{path}", json=body, headers=KEYS | headers) as got:
            return got.status, await got.json() if got.content_type == "application/json" else None

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.events.put_nowait((json.loads(body), dict(request.headers), body))
        return web.Response()

    async def incoming(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return (await self.events.get())[0]


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    app = web.Application()
    app.add_routes(openai_http.routes(world.openai))
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        made = Client(http, "")
        app.router.add_post("/hook", made.receive)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, AGENT, 0)
        await site.start()
        made.base = f"http://{AGENT}:{runner.addresses[0][1]}"
        yield made


async def armed(client: Client) -> dict[str, Any]:
    body = {"name": "W", "url": f"{client.base}/hook", "event_types": INCOMING}
    status, endpoint = await client.ask("POST", "/webhook_endpoints", body)
    assert status == 200, endpoint
    return dict(endpoint)


def place(world: World, **options: object) -> "asyncio.Task[Any]":
    order = {"to": "proj_1", "host": OPENAI_HOST, "credentials": None, **options}
    return asyncio.ensure_future(world.call(**order))


async def test_a_call_is_answered_when_it_is_accepted(world: World, client: Client) -> None:
    endpoint = await armed(client)
    call = place(world, talk_seconds=1)
    event, headers, body = await asyncio.wait_for(client.events.get(), 10)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(endpoint["signing_secret"].removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    assert event["type"] == "realtime.call.incoming"
    assert "From" in {header["name"] for header in event["data"]["sip_headers"]}
    path = f"/realtime/calls/{event['data']['call_id']}"
    assert (await client.ask("POST", f"{path}/accept", {"model": "gpt-realtime"}))[0] == 400
    session = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be kind."}
    assert (await client.ask("POST", f"{path}/accept", session))[0] == 200
    result = await call
    assert (result.answered, result.sip_code) == (True, 200)
    assert (await client.ask("POST", f"{path}/accept", session))[1]["error"]["code"] == "call_id_not_found"
    assert world.openai.calls[0].session == session


async def test_a_rejected_call_is_refused_with_that_status(world: World, client: Client) -> None:
    await armed(client)
    call = place(world)
    path = f"/realtime/calls/{(await client.incoming())['data']['call_id']}"
    assert (await client.ask("POST", f"{path}/reject", {"status_code": 486}))[0] == 200
    result = await call
    assert (result.answered, result.sip_code) == (False, 486)


async def test_hangup_ends_the_call(world: World, client: Client) -> None:
    await armed(client)
    call = place(world, talk_seconds=20)
    path = f"/realtime/calls/{(await client.incoming())['data']['call_id']}"
    await client.ask("POST", f"{path}/accept", {"type": "realtime"})
    await asyncio.sleep(0.5)
    assert (await client.ask("POST", f"{path}/hangup"))[0] == 200
    result = await asyncio.wait_for(call, 10)
    assert (result.answered, result.ended_by) == (True, "agent")


async def test_refer_transfers_the_caller(world: World, client: Client) -> None:
    await armed(client)
    call = place(world, talk_seconds=20)
    path = f"/realtime/calls/{(await client.incoming())['data']['call_id']}"
    target = {"target_uri": "tel:+13035550142"}
    assert (await client.ask("POST", f"{path}/refer", target))[1]["error"]["code"] == "call_id_not_found"
    await client.ask("POST", f"{path}/accept", {"type": "realtime"})
    assert (await client.ask("POST", f"{path}/refer", {"target_uri": "+13035550142"}))[0] == 400
    assert (await client.ask("POST", f"{path}/refer", target))[0] == 200
    result = await asyncio.wait_for(call, 30)
    assert (result.answered, result.referred_to) == (True, "<tel:+13035550142>")


async def test_a_project_that_nobody_knows_is_not_there(world: World, client: Client) -> None:
    result = await place(world, to="proj_nobody")
    assert (result.answered, result.sip_code) == (False, 404)


async def test_a_key_opens_its_project_only(client: Client) -> None:
    assert (await client.ask("GET", "/models"))[0] == 200
    status, answer = await client.ask("GET", "/models", **{"OpenAI-Project": "proj_2"})
    assert (status, answer["error"]["code"]) == (401, "mismatched_project")
    for key in ("Bearer sk-invalid-1", "Bearer other", "Basic sk-1", ""):
        status, answer = await client.ask("GET", "/models", Authorization=key)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    endpoint = await armed(client)
    other = {"Authorization": "Bearer sk-2", "OpenAI-Project": "proj_2"}
    assert (await client.ask("GET", f"/webhook_endpoints/{endpoint['id']}", **other))[0] == 404
    assert (await client.ask("GET", "/webhook_endpoints", **other))[1]["data"] == []


async def test_what_it_knows_outlives_it(world: World, client: Client) -> None:
    endpoint = await armed(client)
    again = type(world.openai)(world.openai._path, "http://127.0.0.1:9")
    assert again.endpoint("proj_1", endpoint["id"]) == world.openai.endpoint("proj_1", endpoint["id"])
    assert "sk-1" not in world.openai._path.read_text()
    assert world.openai._path.stat().st_mode & 0o077 == 0
