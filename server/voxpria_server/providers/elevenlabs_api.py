"""ElevenLabs' REST API: where it is, the key that it is asked with, and what its answers mean."""

from collections.abc import Mapping
from typing import Any

import httpx2

from voxpria_server.providers.base import Mode, RefusedError, UnreachableError
from voxpria_server.providers.hosts import api_url, region_of
from voxpria_server.settings import Settings

_SANDBOX_KEY = "sandbox"
"""Stands in for the person who set the trunk up at ElevenLabs by hand."""
_BUSY = frozenset({408, 425, 429})
_REASON_LENGTH = 300


def key_of(credentials: Mapping[str, str], mode: Mode) -> str | None:
    """Return the key that a trunk's API is asked with; None if there is none, and nobody to be asked."""
    return credentials.get("api_key") or (_SANDBOX_KEY if mode == "test" else None)


class Session:
    """The API of the region that a SIP server is in, with one key. Raises RefusedError if there is no such API."""

    def __init__(self, http: httpx2.AsyncClient, settings: Settings, mode: Mode, server: str, key: str) -> None:
        self.key = key
        self._http = http
        self._base_url = api_url(settings, "elevenlabs", mode, region_of("elevenlabs", server))

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
    ) -> httpx2.Response:
        """Send one request, once; raise UnreachableError if it is not answered, or may be later."""
        try:
            answer = await self._http.request(
                method, self._base_url + path, headers={"xi-api-key": self.key}, json=body, params=params
            )
        except httpx2.HTTPError as error:
            raise UnreachableError("ElevenLabs did not answer") from error
        if answer.status_code in _BUSY or answer.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
            message = f"ElevenLabs answered {answer.status_code}"
            raise UnreachableError(message)
        return answer


def content_of(answer: httpx2.Response) -> Any:  # noqa: ANN401  (what JSON holds)
    """Return what an answer holds, None if that is no JSON; raise RefusedError, with their reason, for an error."""
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.is_error:
        raise RefusedError(_reason(content) or f"ElevenLabs answered {answer.status_code}")
    return content


def _reason(content: object) -> str | None:
    """Return the message in an error body; there are three shapes of them."""
    detail = content.get("detail") if isinstance(content, dict) else None
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        detail = detail[0].get("msg")
    elif isinstance(detail, dict):
        detail = detail.get("message") or detail.get("code") or detail.get("status")
    return detail[:_REASON_LENGTH] if isinstance(detail, str) and detail else None
