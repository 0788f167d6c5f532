"""The fake of ElevenLabs' calls out (`/elevenlabs/v1/convai/sip-trunk/outbound-call`): by a number's outbound trunk.

The simulation calls nobody but the edge of this machine, over UDP or TCP; a trunk that wants TLS is called over TCP.
"""

from typing import Any

import structlog
from aiohttp import web
from pydantic import BaseModel, Field

from voxpria_sandbox.carrier import BusyError, Carrier, Order
from voxpria_sandbox.elevenlabs import NumberStore, StoredNumber
from voxpria_sandbox.elevenlabs_agents import AgentStore
from voxpria_sandbox.http import bodies
from voxpria_sandbox.http.elevenlabs import check_key, refuse
from voxpria_sandbox.sip.digest import Credentials

_PATH = "/elevenlabs/v1/convai/sip-trunk/outbound-call"

log = structlog.get_logger(__name__)


class OutboundCall(BaseModel):
    """Body of POST."""

    agent_id: str = Field(min_length=1, max_length=200)
    agent_phone_number_id: str = Field(min_length=1, max_length=200)
    to_number: str = Field(pattern=r"^\+?[A-Za-z0-9._-]{1,64}$")
    conversation_initiation_client_data: dict[str, Any] | None = None


def routes(provider: Carrier, store: NumberStore, agents: AgentStore, edge_names: frozenset[str]) -> list[web.RouteDef]:
    """Return the routes. `edge_names`: the hosts that mean the edge of this machine."""

    async def place(request: web.Request) -> web.Response:
        check_key(request)
        body = await bodies.read(request, OutboundCall)
        number = store.get(body.agent_phone_number_id)
        if number is None:
            raise refuse(web.HTTPNotFound, "not_found", "phone_number_not_found", "No phone number with this id.")
        order = _order(number, body.to_number, _first_message(agents, body.agent_id), edge_names)
        if isinstance(order, str):
            return _answer(is_success=False, message=order)
        try:
            provider.start(order, lambda event, facts: log.info("call of an agent", step=event, **facts))
        except BusyError:
            return _answer(is_success=False, message="All lines of the sandbox are busy.")
        return _answer(is_success=True, message="Outbound call initiated")

    return [web.post(_PATH, place)]


def _order(number: StoredNumber, to: str, words: str | None, edge_names: frozenset[str]) -> Order | str:
    """Return the call to be placed, or why it can't be."""
    trunk = number.outbound
    if trunk is None:
        return "The phone number has no outbound trunk."
    if trunk.address.partition(":")[0] not in edge_names:
        return f"The sandbox calls the edge of this machine only, and {trunk.address} is not it."
    return Order(
        to=to,
        caller=number.phone_number,
        words=words,
        transport="udp" if trunk.transport == "udp" else "tcp",
        credentials=Credentials(number.outbound_username, number.outbound_password or "")
        if number.outbound_username
        else None,
    )


def _first_message(agents: AgentStore, agent_id: str) -> str | None:
    known = agents.get(agent_id)
    agent = known.conversation_config.get("agent") if known else None
    words = agent.get("first_message") if isinstance(agent, dict) else None
    return words if isinstance(words, str) else None


def _answer(*, is_success: bool, message: str) -> web.Response:
    """Return what ElevenLabs answers; the sandbox keeps no conversation of these calls."""
    return web.json_response({"success": is_success, "message": message, "conversation_id": None, "sip_call_id": None})
