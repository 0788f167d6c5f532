"""Every public path of the sandbox, on one screen."""

from aiohttp import web

from voxpria_sandbox.agent import SipAgent
from voxpria_sandbox.carrier import Carrier
from voxpria_sandbox.elevenlabs import NumberStore
from voxpria_sandbox.elevenlabs_agents import AgentStore
from voxpria_sandbox.http import calls, conversations, elevenlabs, elevenlabs_agents, elevenlabs_calls, numbers
from voxpria_sandbox.http import openai as openai_http
from voxpria_sandbox.http.hooks import Receiver
from voxpria_sandbox.openai import OpenAI
from voxpria_sandbox.settings import SOFTWARE

_MAX_BODY_BYTES = 1 << 20
_ABOUT = """\
This is the sandbox of VoxPria: a simulation for first steps and tests. No carrier, no provider, no real phone.

  POST /carrier/calls          place a call from the simulated carrier; progress as lines of JSON, the result last
  GET  /agent/calls            what the simulated SIP agent heard and said
  POST /agent/calls            place a call as a provider's agent does: out through the edge, from a number of yours
  POST /sip/numbers            the simulated SIP server takes a number on
  /elevenlabs/v1/convai        a fake of ElevenLabs' API: phone-numbers, agents, conversations of its SIP agent,
                               calls out through a number's outbound trunk
  /openai/v1                   a fake of OpenAI's API: models, webhook endpoints, calls; GET /openai/calls shows them
  POST, GET /hooks/{name}      a receiver of webhooks; PUT /hooks/{name}/failures makes the next ones fail
  GET  /healthz
"""


def build(
    carrier: Carrier,
    provider: Carrier,
    agent: SipAgent,
    store: NumberStore,
    agents: AgentStore,
    openai: OpenAI,
    slow_seconds: float,
    edge_names: frozenset[str],
) -> web.Application:
    """Return the application."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.add_routes(
        [
            web.get("/", _about),
            web.get("/healthz", _health),
            *calls.routes(carrier, provider, agent),
            *numbers.routes(slow_seconds),
            *elevenlabs.routes(store, slow_seconds),
            *conversations.routes(agent),
            *elevenlabs_agents.routes(agents),
            *elevenlabs_calls.routes(provider, store, agents, edge_names),
            *openai_http.routes(openai),
            *Receiver().routes(),
        ]
    )
    app.on_response_prepare.append(_say_what_this_is)
    return app


async def _about(_: web.Request) -> web.Response:
    return web.Response(text=_ABOUT)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _say_what_this_is(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SOFTWARE
