"""ElevenLabs Agents: a number has to be imported there before its SIP server takes calls for it.

Importing twice is refused there, so a number that is already theirs is looked up and brought up to date.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from voxpria_server.providers.base import Mode, NumberOrder, RefusedError, UnreachableError, is_there
from voxpria_server.providers.hosts import api_url, region_of
from voxpria_server.settings import Settings

SANDBOX_KEY = "sandbox"
"""The sandbox's key: stands in for the person who set the trunk up at ElevenLabs by hand."""

_PATH = "/v1/convai/phone-numbers"
_AGENTS = "/v1/convai/agents"
_NAME_LENGTH = 200
_BUSY = frozenset({408, 425, 429})
_REASON_LENGTH = 300


def key_of(credentials: Mapping[str, str], mode: Mode) -> str | None:
    """Return the key that a trunk's API is asked with; None if there is none, and nobody to be asked."""
    return credentials.get("api_key") or (SANDBOX_KEY if mode == "test" else None)


class ElevenLabs:
    """Adapter of ElevenLabs trunks, over their REST API."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self._http, self._settings = http, settings

    async def provision(self, order: NumberOrder) -> str | None:
        """Import the number, or update it. A live trunk without API key was set up there by hand: None."""
        session = self._session(order.mode, order.server, order.credentials)
        if session is None:
            return None
        if order.provider_number_id and await session.update(order.provider_number_id, order):
            return order.provider_number_id
        return await session.import_or_adopt(order)

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
        if key is None:
            return None
        url = api_url(self._settings, "elevenlabs", mode, region_of("elevenlabs", server))
        return _Session(self._http, url, key)


class _Session:
    """The API, with one key."""

    def __init__(self, http: httpx2.AsyncClient, base_url: str, key: str) -> None:
        self._http, self._base_url, self._headers = http, base_url, {"xi-api-key": key}

    async def import_or_adopt(self, order: NumberOrder) -> str:
        body = {"phone_number": order.e164, "label": order.e164, "provider": "sip_trunk", **_settings_of(order)}
        answer = await self._send("POST", _PATH, body)
        if answer.status_code == httpx2.codes.CONFLICT:
            return await self._adopt(order)
        return _string(_content(answer), "phone_number_id")

    async def update(self, number_id: str, order: NumberOrder) -> bool:
        """Return False if the number is no longer there."""
        answer = await self._send("PATCH", f"{_PATH}/{number_id}", _settings_of(order))
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return False
        _content(answer)
        return True

    async def agent_name(self, agent_id: str) -> str | None:
        answer = await self._send("GET", f"{_AGENTS}/{quote(agent_id, safe='')}", None)
        if answer.status_code == httpx2.codes.NOT_FOUND:
            return None
        content = _content(answer)
        name = content.get("name") if isinstance(content, dict) else None
        return name[:_NAME_LENGTH].replace("\x00", "") if isinstance(name, str) and name else None

    async def _adopt(self, order: NumberOrder) -> str:
        numbers = _content(await self._send("GET", _PATH, None))
        for number in numbers if isinstance(numbers, list) else []:
            if isinstance(number, dict) and number.get("phone_number") == order.e164:
                number_id = _string(number, "phone_number_id")
                await self.update(number_id, order)
                return number_id
        raise RefusedError("ElevenLabs has this number already, but not where this API key sees it")

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx2.Response:
        try:
            answer = await self._http.request(method, self._base_url + path, headers=self._headers, json=body)
        except httpx2.HTTPError as error:
            raise UnreachableError("ElevenLabs did not answer") from error
        if answer.status_code in _BUSY or answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            message = f"ElevenLabs answered {answer.status_code}"
            raise UnreachableError(message)
        return answer


def _settings_of(order: NumberOrder) -> dict[str, Any]:
    credentials = {name: order.credentials[name] for name in ("username", "password")}
    settings: dict[str, Any] = {"inbound_trunk_config": {"media_encryption": "allowed", "credentials": credentials}}
    if order.agent_id is not None:
        settings["agent_id"] = order.agent_id
    return settings


def _content(answer: httpx2.Response) -> Any:  # noqa: ANN401  (what JSON holds)
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.is_error:
        raise RefusedError(_reason(content) or f"ElevenLabs answered {answer.status_code}")
    return content


def _string(content: object, name: str) -> str:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, str) or not value:
        raise UnreachableError("ElevenLabs gave an answer without the number's id")
    return value


def _reason(content: object) -> str | None:
    """Return the message in an error body; there are three shapes of them."""
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        detail = detail[0].get("msg")
    elif isinstance(detail, dict):
        detail = detail.get("message") or detail.get("code") or detail.get("status")
    return detail[:_REASON_LENGTH] if isinstance(detail, str) and detail else None
