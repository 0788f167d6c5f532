"""What the OpenAI fake knows: projects, the keys that open them, their webhooks (kept in one file), and ringing calls.

A key belongs to the project that it is first used with; one that begins with `sk-invalid` opens none, and one with
`sk-restricted` may do all but manage webhooks. Keys are kept as hashes: somebody may send a real one by mistake.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import structlog
from pydantic import BaseModel, Field
from voxpria_sip.message import Request

from voxpria_sandbox.files import write_private

INCOMING_CALL = "realtime.call.incoming"
_MAX_ENDPOINTS, _MAX_PROJECTS, _KEPT_CALLS = 50, 1000, 100
_RING_SECONDS = 20.0
_DELIVERY_PAUSES = (0.3, 1.0, 3.0)
_DELIVERY_SECONDS = 5.0
_DECLINED, _UNAVAILABLE = 603, 480
_MOST_TOLD = 10

log = structlog.get_logger(__name__)


class EndpointCreate(BaseModel):
    """Body of `POST /v1/webhook_endpoints`."""

    name: str = Field(min_length=1, max_length=200)
    url: str = Field(max_length=2000, pattern="^https?://[^/@]+")
    event_types: list[str] = Field(min_length=1, max_length=50)


class EndpointUpdate(BaseModel):
    """Body of `POST /v1/webhook_endpoints/{id}`: what is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=200)
    url: str | None = Field(None, max_length=2000, pattern="^https?://[^/@]+")
    event_types: list[str] | None = Field(None, min_length=1, max_length=50)


class Endpoint(EndpointCreate):
    """A webhook of a project, as it is kept."""

    id: str
    project: str
    created_at: int
    updated_at: int
    secret: str = Field(repr=False)
    old_secret: str | None = Field(None, repr=False)

    def shown(self) -> dict[str, Any]:
        """Return the webhook as GET shows it."""
        return {
            "id": self.id,
            "object": "webhook_endpoint",
            "name": self.name,
            "url": self.url,
            "event_types": self.event_types,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "signing_secret_hint": f"whsec_...{self.secret[-4:]}",
        }


@dataclass
class RingingCall:
    """A call that rings at a project, until it is accepted, rejected or given up."""

    id: str
    project: str
    sip_headers: list[dict[str, str]]
    status: Literal["ringing", "accepted", "rejected", "unanswered"] = "ringing"
    session: dict[str, Any] | None = None
    greeted: asyncio.Event = field(default_factory=asyncio.Event)
    """The agent was told to speak first."""
    is_over: bool = False
    sockets: set[asyncio.Queue[dict[str, Any] | None]] = field(default_factory=set)
    """What those are told who are on the call's socket; None is the end."""
    decided: asyncio.Future[int | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """None: answer; else the SIP status to refuse with."""
    told: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(_MOST_TOLD))
    """What an accepted call is told: whereto its caller is to be referred; None is to hang up."""

    def shown(self) -> dict[str, Any]:
        """Return the call as the sandbox shows it."""
        return {
            "call_id": self.id,
            "project": self.project,
            "status": self.status,
            "session": self.session,
            "greeted": self.greeted.is_set(),
        }

    @property
    def is_transcribed(self) -> bool:
        """Whether the session asks for the caller's words."""
        audio = (self.session or {}).get("audio")
        heard = audio.get("input") if isinstance(audio, dict) else None
        return isinstance(heard, dict) and bool(heard.get("transcription"))

    def tell(self, event_type: str, **fields: object) -> None:
        """Tell all who are on the socket; nobody hears it later."""
        self._put({"type": event_type, "event_id": f"event_{secrets.token_hex(12)}", **fields})

    def end(self) -> None:
        """Close its sockets; there are no more."""
        self.is_over = True
        self._put(None)

    def _put(self, event: dict[str, Any] | None) -> None:
        for socket in self.sockets:
            with contextlib.suppress(asyncio.QueueFull):
                socket.put_nowait(event)


class UnauthorizedError(Exception):
    """The key is none, or opens another project; `code` is OpenAI's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OpenAI:
    """The fake's state. `local_url` is where the API of this instance is: nothing is delivered beyond this machine."""

    def __init__(self, path: Path, local_url: str) -> None:
        self._path, self._local_url, self._lock = path, local_url, asyncio.Lock()
        self._keys: dict[str, str] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self.calls: deque[RingingCall] = deque(maxlen=_KEPT_CALLS)
        if path.exists():
            stored = json.loads(path.read_text())
            self._keys = stored["keys"]
            self._endpoints = {each["id"]: Endpoint.model_validate(each) for each in stored["endpoints"]}

    async def authorise(self, key: str, project: str | None) -> str:
        """Return the project that a key opens; raise UnauthorizedError."""
        if not key.startswith("sk-") or key.startswith("sk-invalid"):
            raise UnauthorizedError("invalid_api_key", "Incorrect API key provided.")
        digest = hashlib.sha256(key.encode()).hexdigest()
        known = self._keys.get(digest)
        if known is None:
            if project is None or len(self._keys) >= _MAX_PROJECTS:
                raise UnauthorizedError("invalid_api_key", "The sandbox does not know this key: name its project.")
            self._keys[digest] = known = project
            await self._save()
        if project not in (None, known):
            raise UnauthorizedError("mismatched_project", "OpenAI-Project header should match project for API key.")
        return known

    def endpoints(self, project: str) -> list[Endpoint]:
        """Return a project's webhooks, newest first."""
        return [each for each in reversed(self._endpoints.values()) if each.project == project]

    def endpoint(self, project: str, endpoint_id: str) -> Endpoint | None:
        """Return one webhook of a project."""
        found = self._endpoints.get(endpoint_id)
        return found if found is not None and found.project == project else None

    async def add_endpoint(self, project: str, body: EndpointCreate) -> Endpoint | None:
        """Add a webhook; None if there are too many."""
        if len(self.endpoints(project)) >= _MAX_ENDPOINTS:
            return None
        now = int(time.time())
        made = Endpoint(
            **body.model_dump(),
            id=f"we_{secrets.token_hex(12)}",
            project=project,
            created_at=now,
            updated_at=now,
            secret=_new_secret(),
        )
        self._endpoints[made.id] = made
        await self._save()
        return made

    async def change_endpoint(self, endpoint: Endpoint, body: EndpointUpdate) -> Endpoint:
        """Change a webhook."""
        change = {**body.model_dump(exclude_none=True), "updated_at": int(time.time())}
        self._endpoints[endpoint.id] = changed = endpoint.model_copy(update=change)
        await self._save()
        return changed

    async def rotate_secret(self, endpoint: Endpoint, *, keeps_old: bool) -> Endpoint:
        """Give a webhook a new secret; the old one may go on signing beside it."""
        change = {"secret": _new_secret(), "old_secret": endpoint.secret if keeps_old else None}
        self._endpoints[endpoint.id] = changed = endpoint.model_copy(update={**change, "updated_at": int(time.time())})
        await self._save()
        return changed

    async def remove_endpoint(self, endpoint: Endpoint) -> None:
        """Delete a webhook."""
        del self._endpoints[endpoint.id]
        await self._save()

    def call(self, project: str, call_id: str) -> RingingCall | None:
        """Return a call of a project."""
        return next((call for call in self.calls if call.id == call_id and call.project == project), None)

    def has_project(self, project: str) -> bool:
        """Tell whether a project is known: a key has been used with it."""
        return project in self._keys.values()

    async def ring(self, project: str, request: Request) -> tuple[RingingCall, int | None]:
        """Tell a project's webhooks of a call and wait; return it, and the SIP status to refuse it with, if any."""
        call = RingingCall(
            id=f"rtc_{secrets.token_hex(14)}",
            project=project,
            sip_headers=[{"name": name, "value": value} for name, value in request.headers if _is_told(name)],
        )
        self.calls.append(call)
        data = {"call_id": call.id, "sip_headers": call.sip_headers}
        telling = asyncio.create_task(self._tell(project, INCOMING_CALL, data))
        try:
            async with asyncio.timeout(_RING_SECONDS):
                return call, await asyncio.shield(call.decided)
        except TimeoutError:
            call.status = "unanswered"
            return call, _UNAVAILABLE
        finally:
            telling.cancel()
            if call.status == "ringing":  # the caller gave up
                call.status = "unanswered"

    async def test(self, endpoint: Endpoint) -> int | None:
        """Send an event of a call that is none; return the answer's status."""
        body = _event(INCOMING_CALL, {"call_id": f"rtc_test_{secrets.token_hex(8)}", "sip_headers": []})
        async with aiohttp.ClientSession() as http:
            return await self._deliver(http, endpoint, f"wh_{secrets.token_hex(12)}", body)

    async def _tell(self, project: str, event_type: str, data: dict[str, Any]) -> None:
        body = _event(event_type, data)
        async with aiohttp.ClientSession() as http:
            subscribed = [each for each in self.endpoints(project) if event_type in each.event_types]
            await asyncio.gather(*(self._insist(http, endpoint, body) for endpoint in subscribed))

    async def _insist(self, http: aiohttp.ClientSession, endpoint: Endpoint, body: bytes) -> None:
        message_id = f"wh_{secrets.token_hex(12)}"
        for pause in (*_DELIVERY_PAUSES, None):
            status = await self._deliver(http, endpoint, message_id, body)
            if status is not None and 200 <= status < 300:
                return
            log.warning("an event was not taken", url=endpoint.url, status=status)
            if pause is not None:
                await asyncio.sleep(pause)

    async def _deliver(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, message_id: str, body: bytes
    ) -> int | None:
        at = str(int(time.time()))
        keys = [secret for secret in (endpoint.secret, endpoint.old_secret) if secret is not None]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "VoxPria sandbox, a simulation of OpenAI",
            "webhook-id": message_id,
            "webhook-timestamp": at,
            "webhook-signature": " ".join(_signature(key, f"{message_id}.{at}.".encode() + body) for key in keys),
        }
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(_DELIVERY_SECONDS):
                posted = http.post(
                    self._on_this_machine(endpoint.url), data=body, headers=headers, allow_redirects=False
                )
                async with posted as answer:
                    return answer.status
        return None

    def _on_this_machine(self, url: str) -> str:
        """Return the URL, or its path at this instance's API: test mode never leaves this machine."""
        parts = urlsplit(url)
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(parts.hostname or "").is_loopback:
                return url
        return self._local_url + (parts.path or "/")

    async def _save(self) -> None:
        async with self._lock:
            endpoints = [each.model_dump() for each in self._endpoints.values()]
            data = json.dumps({"keys": self._keys, "endpoints": endpoints}).encode()
            await asyncio.to_thread(write_private, self._path, data)


def decide(call: RingingCall, session: dict[str, Any] | None, status_code: int = _DECLINED) -> bool:
    """Accept a call with a session, or reject it without; False if it is decided already."""
    if call.decided.done() or call.status != "ringing":
        return False
    call.status, call.session = ("accepted", session) if session is not None else ("rejected", None)
    call.decided.set_result(None if session is not None else status_code)
    return True


def _event(event_type: str, data: dict[str, Any]) -> bytes:
    event = {"object": "event", "id": f"evt_{secrets.token_hex(12)}", "type": event_type}
    return json.dumps({**event, "created_at": int(time.time()), "data": data}).encode()


def _is_told(name: str) -> bool:
    """Credentials are not passed on (OpenAI strips them too)."""
    return name.lower() not in {"authorization", "proxy-authorization"}


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
