"""OpenAI Realtime: a project takes every call that is sent to it, once a webhook of ours is told of them.

Numbers are not known there one by one: a number is ready as soon as its trunk is. A call rings until it is accepted
through the REST API, with what the agent is to be like.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx2

from voxpria_server.kit.clock import utc_now
from voxpria_server.providers.base import Mode, NumberOrder, RefusedError, Taken, UnreachableError, is_there
from voxpria_server.providers.hosts import api_url, region_of
from voxpria_server.providers.openai_said import Dictation, Said
from voxpria_server.settings import Settings

INCOMING_CALL = "realtime.call.incoming"
_ENDPOINTS = "/v1/webhook_endpoints"
_ENDPOINT_NAME = "VoxPria"
_BUSY = frozenset({408, 409, 425, 429})
_CLOSED = frozenset({403, 404})
_REASON_LENGTH = 300
_MAX_PAGES = 20
_ATTACH_SECONDS = 10.0
_HEARTBEAT_SECONDS = 30.0
_LONGEST_EVENT_BYTES = 1 << 20
_UNTIMED = aiohttp.ClientTimeout(total=None)
"""A call has no end of its own here; a peer that is gone answers no heartbeat."""


@dataclass(frozen=True)
class Project:
    """An OpenAI project, and the key that opens it."""

    mode: Mode
    region: str | None
    """Where its data stays, as `hosts.region_of` tells."""
    project_id: str
    api_key: str = field(repr=False, compare=False)

    @classmethod
    def of(cls, mode: Mode, server: str, credentials: Mapping[str, str]) -> "Project":
        """Return the project that a trunk's credentials name; its calls go to `server`."""
        return cls(mode, region_of("openai", server), credentials["project_id"], credentials["api_key"])


@dataclass(frozen=True)
class Armed:
    """What came of arming a project's webhook."""

    is_registered: bool
    """False where the key may not manage webhooks: then the project's owner has to enter the URL there by hand."""
    signing_secret: str | None = field(default=None, repr=False)
    """What OpenAI signs with; None where it said so before, or only its owner knows."""


class OpenAI:
    """Adapter of OpenAI trunks, over their REST API."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings) -> None:
        self._http, self._settings = http, settings

    async def provision(self, order: NumberOrder) -> Taken:
        """Take a number on: nothing to be done there, if its trunk is provisioned."""
        if not order.is_trunk_provisioned:
            raise RefusedError("its OpenAI trunk is not provisioned: POST /v1/sip/trunks/{trunk_id}/provision")
        return Taken()

    async def arm(self, project: Project, webhook_url: str, *, is_secret_known: bool) -> Armed:
        """Check key and project, and have the project's incoming calls told to `webhook_url`. Safe to do again.

        `is_secret_known`: we hold the secret that our webhook signs with; else it is rolled. Raises RefusedError or
        UnreachableError.
        """
        _content(await self._send(project, "GET", "/v1/models"))
        found = await self._endpoints(project)
        if found is None:
            return Armed(is_registered=False)
        mine = [endpoint for endpoint in found if endpoint.get("url") == webhook_url and "id" in endpoint]
        ready = next((endpoint for endpoint in mine if INCOMING_CALL in (endpoint.get("event_types") or ())), None)
        if ready is None:
            body = {"name": _ENDPOINT_NAME, "url": webhook_url, "event_types": [INCOMING_CALL]}
            return _armed(_content(await self._send(project, "POST", _ENDPOINTS, body)))
        if is_secret_known or ready.get("name") != _ENDPOINT_NAME:
            return Armed(is_registered=True)
        path = f"{_ENDPOINTS}/{quote(str(ready['id']), safe='')}/rotate_secret"
        return _armed(_content(await self._send(project, "POST", path, {"keep_old_secret_active_for_24_hours": True})))

    async def disarm(self, project: Project, webhook_url: str) -> int:
        """Delete the project's webhooks of our making that tell `webhook_url`; return how many. Safe to do again.

        Raises as `arm` does. Webhooks that somebody else made stay, and so do all where the key may not see them.
        """
        mine = [
            endpoint["id"]
            for endpoint in await self._endpoints(project) or ()
            if endpoint.get("url") == webhook_url and endpoint.get("name") == _ENDPOINT_NAME and "id" in endpoint
        ]
        for endpoint_id in mine:
            answer = await self._send(project, "DELETE", f"{_ENDPOINTS}/{quote(str(endpoint_id), safe='')}")
            if answer.status_code != httpx2.codes.NOT_FOUND:
                _content(answer)
        return len(mine)

    async def answers(self, mode: Mode) -> bool:
        """Tell whether the API is there."""
        return await is_there(self._http, f"{api_url(self._settings, 'openai', mode)}/v1/models")

    async def accept(self, project: Project, call_id: str, session: Mapping[str, Any]) -> None:
        """Have a ringing call answered by an agent that is as `session` says; raise as `arm` does."""
        _content(await self._send(project, "POST", f"/v1/realtime/calls/{call_id}/accept", session))

    async def attend(
        self,
        project: Project,
        call_id: str,
        *,
        speaks_first: Callable[[], Awaitable[bool]],
        on_said: Callable[[Said], Awaitable[None]],
    ) -> bool:
        """Follow an accepted call over its own socket until that is closed; False if there is no such call.

        It is there once the call is, and closed when that ends; our closing it leaves the call alone. Once on it
        `speaks_first` is asked whether the agent is to begin. Raises as `arm` does.
        """
        url = f"{self._base_url(project)}/v1/realtime?call_id={quote(call_id, safe='')}"
        dictation = Dictation()
        try:
            async with aiohttp.ClientSession(timeout=_UNTIMED, trust_env=False) as http:
                async with asyncio.timeout(_ATTACH_SECONDS):
                    socket = await http.ws_connect(
                        url, headers=_headers(project), heartbeat=_HEARTBEAT_SECONDS, max_msg_size=_LONGEST_EVENT_BYTES
                    )
                async with socket:
                    if await speaks_first():
                        await socket.send_json({"type": "response.create"})
                    async for message in socket:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break
                        if said := dictation.hear(message.data, utc_now()):
                            await on_said(said)
        except aiohttp.WSServerHandshakeError as error:
            if error.status == httpx2.codes.NOT_FOUND:
                return False
            reason = f"OpenAI answered {error.status}"
            if error.status in _BUSY or error.status >= httpx2.codes.INTERNAL_SERVER_ERROR:
                raise UnreachableError(reason) from error
            raise RefusedError(reason) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnreachableError("OpenAI did not answer") from error
        return True

    async def reject(self, project: Project, call_id: str, status_code: int) -> None:
        """Refuse a ringing call with a SIP status code; raise as `arm` does."""
        body = {"status_code": status_code}
        _content(await self._send(project, "POST", f"/v1/realtime/calls/{call_id}/reject", body))

    async def _endpoints(self, project: Project) -> list[dict[str, Any]] | None:
        """Return the project's webhooks; None if the key may not see them."""
        found: list[dict[str, Any]] = []
        after = ""
        for _ in range(_MAX_PAGES):
            answer = await self._send(project, "GET", f"{_ENDPOINTS}?limit=100{after}")
            if answer.status_code in _CLOSED:
                return None
            content = _content(answer)
            page = content.get("data") if isinstance(content, dict) else None
            found += [endpoint for endpoint in page or () if isinstance(endpoint, dict)]
            if not page or not content.get("has_more"):
                break
            after = f"&after={quote(str(content.get('last_id')), safe='')}"
        return found

    async def _send(
        self, project: Project, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx2.Response:
        url = self._base_url(project) + path
        try:
            answer = await self._http.request(method, url, headers=_headers(project), json=body)
        except httpx2.HTTPError as error:
            raise UnreachableError("OpenAI did not answer") from error
        if answer.status_code in _BUSY or answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            message = f"OpenAI answered {answer.status_code}"
            raise UnreachableError(message)
        return answer

    def _base_url(self, project: Project) -> str:
        return api_url(self._settings, "openai", project.mode, project.region)


def _headers(project: Project) -> dict[str, str]:
    return {"Authorization": f"Bearer {project.api_key}", "OpenAI-Project": project.project_id}


def _armed(content: object) -> Armed:
    secret = content.get("signing_secret") if isinstance(content, dict) else None
    if not isinstance(secret, str) or not secret:
        raise UnreachableError("OpenAI made a webhook without telling its secret")
    return Armed(is_registered=True, signing_secret=secret)


def _content(answer: httpx2.Response) -> Any:  # noqa: ANN401  (what JSON holds)
    try:
        content = answer.json() if answer.content else {}
    except ValueError:
        content = {}
    if answer.is_error:
        error = content.get("error") if isinstance(content, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        raise RefusedError(str(message)[:_REASON_LENGTH] if message else f"OpenAI answered {answer.status_code}")
    return content
