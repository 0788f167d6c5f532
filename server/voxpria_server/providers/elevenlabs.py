"""ElevenLabs Agents: a number has to be imported there before its SIP server takes calls for it.

Importing twice is refused there, so a number that is already theirs is looked up and brought up to date.
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import httpx2

from voxpria_server.providers.base import Mode, NumberOrder, RefusedError, Taken, UnreachableError, is_there
from voxpria_server.providers.elevenlabs_api import Session, content_of, key_of
from voxpria_server.providers.hosts import api_url
from voxpria_server.settings import Settings

_PATH = "/v1/convai/phone-numbers"
_AGENTS = "/v1/convai/agents"
_NAME_LENGTH = 200
_AT_ONCE = 5
"""Numbers of one key that a process brings there at a time: ElevenLabs limits how many requests there are at once."""
_OWNERS = {
    "inbound_trunk": ("allowed_addresses", "allowed_numbers", "remote_domains", "attributes_to_headers"),
    "outbound_trunk": ("headers", "attributes_to_headers"),
}
_ADDRESS_LENGTH = 255


class ElevenLabs:
    """Adapter of ElevenLabs trunks, over their REST API."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self._http, self._settings = http, settings
        self._lanes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def provision(self, order: NumberOrder) -> Taken:
        """Import the number, or update it. A live trunk without API key was set up there by hand: nothing to do."""
        session = self._session(order.mode, order.server, order.credentials)
        if session is None:
            return Taken()
        async with self._lanes.setdefault(session.key, asyncio.Semaphore(_AT_ONCE)):
            return await self._provision(session, order)

    async def _provision(self, session: "_Session", order: NumberOrder) -> Taken:
        there = await session.get(order.provider_number_id) if order.provider_number_id else None
        if there is None and order.may_be_there:  # an import is not safe to send twice: nothing there makes it one
            there = await session.find(order.e164)
        if there is not None:
            return await session.update(there, order)
        if (number_id := await session.add(order)) is not None:
            if stack := _stack(order):  # an import can't say it
                await session.change(number_id, stack)
            return Taken(number_id)
        there = await session.find(order.e164)
        if there is None:
            raise RefusedError("ElevenLabs has this number already, but not where this API key sees it")
        return await session.update(there, order)

    async def agent_name(self, mode: Mode, server: str, credentials: Mapping[str, str], agent_id: str) -> str | None:
        """Return an agent's name; None if there is no such agent. Raises RefusedError or UnreachableError."""
        session = self._session(mode, server, credentials)
        if session is None:
            raise RefusedError("the trunk has no api_key to ask with")
        return await session.agent_name(agent_id)

    async def answers(self, mode: Mode) -> bool:
        """Tell whether the API is there."""
        return await is_there(self._http, f"{api_url(self._settings, 'elevenlabs', mode)}/v1/models")

    def _session(self, mode: Mode, server: str, credentials: Mapping[str, str]) -> "_Session | None":
        """Return the API, with a trunk's key; None if it has none."""
        key = key_of(credentials, mode)
        return None if key is None else _Session(self._http, self._settings, mode, server, key)


class _Session(Session):
    """The part of the API that numbers and agents are managed with."""

    async def get(self, number_id: str) -> dict[str, Any] | None:
        """Return a number as it is there; None if it is gone."""
        answer = await self.ask("GET", _path_of(number_id))
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return None
        content = content_of(answer)
        return content if isinstance(content, dict) else {}

    async def find(self, e164: str) -> dict[str, Any] | None:
        """Return the number as it is there, looked for in the list."""
        numbers = content_of(await self.ask("GET", _PATH))
        known = numbers if isinstance(numbers, list) else []
        return next((one for one in known if isinstance(one, dict) and one.get("phone_number") == e164), None)

    async def add(self, order: NumberOrder) -> str | None:
        """Import the number and return its id; None if it is there already."""
        body = {"phone_number": order.e164, "label": order.e164, "provider": "sip_trunk", **_wanted(order, {})}
        answer = await self.ask("POST", _PATH, body)
        return None if answer.status_code == httpx2.codes.CONFLICT else _id_in(content_of(answer))

    async def update(self, there: Mapping[str, Any], order: NumberOrder) -> Taken:
        """Bring a number up to date, and say what is left as somebody else set it."""
        number_id = _id_in(there)
        await self.change(number_id, {**_wanted(order, there), **_stack(order)})
        return Taken(number_id, _remark(order, there))

    async def change(self, number_id: str, wanted: Mapping[str, Any]) -> None:
        """Set what is wanted."""
        content_of(await self.ask("PATCH", _path_of(number_id), wanted))

    async def agent_name(self, agent_id: str) -> str | None:
        answer = await self.ask("GET", f"{_AGENTS}/{quote(agent_id, safe='')}")
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return None
        content = content_of(answer)
        name = content.get("name") if isinstance(content, dict) else None
        return name[:_NAME_LENGTH].replace("\x00", "") if isinstance(name, str) and name else None


def _wanted(order: NumberOrder, there: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request is to set. A configuration is replaced as a whole, so what its owner set is repeated.

    The trunk's username and password go both ways: the edge answers their challenge, and they answer the edge's.
    """
    credentials = {name: order.credentials[name] for name in ("username", "password")}
    ours = {"media_encryption": order.media_encryption, "credentials": credentials}
    wanted: dict[str, Any] = {"inbound_trunk_config": {**_owners(there, "inbound_trunk"), **ours}}
    if order.edge is not None and _elsewhere(order, there) is None:
        codecs = [f"{name}/8000" for name in order.codecs]
        way = {"address": order.edge, "transport": order.transport, "enabled_codecs": codecs}
        wanted["outbound_trunk_config"] = {**_owners(there, "outbound_trunk"), **way, **ours}
    if order.agent_id is not None:
        wanted["agent_id"] = order.agent_id
    return wanted


def _stack(order: NumberOrder) -> dict[str, str]:
    """Return what puts a number on the servers with static addresses, where its trunk's server is one of them."""
    return {"livekit_stack": "static"} if order.server.startswith("sip-static.") else {}


def _owners(there: Mapping[str, Any], trunk: str) -> dict[str, Any]:
    """Return what a number's owner may have set on one of its trunks there, and we never do."""
    known = there.get(trunk)
    names = _OWNERS[trunk]
    return {name: known[name] for name in names if known.get(name) is not None} if isinstance(known, dict) else {}


def _elsewhere(order: NumberOrder, there: Mapping[str, Any]) -> str | None:
    """Return where the calls of the number's agent go by somebody else's doing; None if we may say where.

    An outbound trunk with this trunk's username leads to our edge, under whatever name it had then.
    """
    trunk = there.get("outbound_trunk")
    address = trunk.get("address") if isinstance(trunk, dict) else None
    if not isinstance(trunk, dict) or not isinstance(address, str) or not address:
        return None
    is_ours = address == order.edge or trunk.get("username") == order.credentials["username"]
    return None if is_ours else address[:_ADDRESS_LENGTH]


def _remark(order: NumberOrder, there: Mapping[str, Any]) -> str | None:
    elsewhere = _elsewhere(order, there)
    if order.edge is None or elsewhere is None:
        return None
    return (
        f"calls that its agent places at ElevenLabs go to {elsewhere}, not to its carrier here: remove the number's"
        f" outbound trunk there, or set it to {order.edge}, and provision again"
    )


def _path_of(number_id: str) -> str:
    return f"{_PATH}/{quote(number_id, safe='')}"


def _id_in(content: object) -> str:
    value = content.get("phone_number_id") if isinstance(content, dict) else None
    if not isinstance(value, str) or not value:
        raise UnreachableError("ElevenLabs gave an answer without the number's id")
    return value
