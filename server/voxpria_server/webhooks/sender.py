"""One attempt of a delivery over HTTP."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from voxpria_server.webhooks.guard import ForbiddenAddressError, socket_factory
from voxpria_server.webhooks.lanes import Lanes

TIMEOUT_SECONDS = 15.0
_RESPONSE_BYTES = 1024
_ERROR_LENGTH = 300
_RESPONSE_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: a status code, or an error."""

    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    response: str | None = None

    @property
    def is_success(self) -> bool:
        """True for a 2xx answer; a redirect is none, as it is not followed."""
        return self.status_code is not None and 200 <= self.status_code < 300


class Sender:
    """Sends deliveries. Make it within the event loop, and `close` it."""

    def __init__(self, *, allow_private: bool) -> None:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=socket_factory(allow_private=allow_private)),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": "VoxPria-Webhooks/1"},
        )
        self.lanes = Lanes()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Post `body` and return what came of it; never raises for what the other side does."""
        started_at = time.perf_counter()
        try:
            status_code, response = await self._post(url, body, headers)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Outcome(duration_ms=_since(started_at), error=_explain(error))
        return Outcome(duration_ms=_since(started_at), status_code=status_code, response=response)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        sent = {"Content-Type": "application/json", **headers}
        async with self._client.post(url, data=body, headers=sent, allow_redirects=False) as answer:
            return answer.status, await _start_of(answer)


def _explain(error: Exception) -> str:
    """Say in one sentence why there was no answer."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"The TLS certificate is not valid: {error.certificate_error}"[:_ERROR_LENGTH]
    if isinstance(error, aiohttp.ClientConnectorError):
        return _connection_error(error)[:_ERROR_LENGTH]
    if isinstance(error, TimeoutError):
        return f"No answer within {TIMEOUT_SECONDS:g} s."
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "The connection was closed before an answer came."
    return f"Not a proper HTTP exchange: {type(error).__name__}."


def _connection_error(error: aiohttp.ClientConnectorError) -> str:
    cause = error.os_error
    if isinstance(cause, ForbiddenAddressError):
        return f"Not allowed: {cause}."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "The host's name can't be resolved."
    return f"No connection: {cause.strerror or type(cause).__name__}."


async def _start_of(answer: aiohttp.ClientResponse) -> str:
    """Return the start of the body; the status stands, so a body that fails or dawdles is no failure."""
    received = b""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(_RESPONSE_SECONDS):
            while len(received) < _RESPONSE_BYTES and (chunk := await answer.content.read(_RESPONSE_BYTES)):
                received += chunk
    return received[:_RESPONSE_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")


def _since(started_at: float) -> int:
    return round((time.perf_counter() - started_at) * 1000)
