"""The fake of OpenAI's API (`/openai/v1`): models, webhook endpoints, calls over SIP; with its shapes and errors.

It is stricter than OpenAI in one thing: a session without `type: realtime` is refused at once, not when the call fails.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voxpria_sandbox.openai import (
    INCOMING_CALL,
    Endpoint,
    EndpointCreate,
    EndpointUpdate,
    OpenAI,
    RingingCall,
    UnauthorizedError,
    decide,
)

_PATH = "/openai/v1"
_LONGEST_EVENT_BYTES = 64 * 1024
_MOST_UNSENT = 100
_MODELS = ("gpt-realtime", "gpt-realtime-mini", "gpt-realtime-2")
_REALTIME = ("gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime")
"""How the names of models begin that a call may have: new ones come faster than this list."""
Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Accept(BaseModel):
    """Body of accept: a realtime session."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(pattern="^realtime$")
    model: str | None = Field(None, max_length=200)


class Reject(BaseModel):
    """Body of reject."""

    status_code: int = Field(603, ge=400, le=699)


class Refer(BaseModel):
    """Body of refer."""

    target_uri: str = Field(max_length=512, pattern=r"^(tel|sips?):[^\s<>]+$")


class Rotate(BaseModel):
    """Body of rotate_secret."""

    keep_old_secret_active_for_24_hours: bool = False


def routes(openai: OpenAI) -> list[web.RouteDef]:
    """Return the routes."""
    api = _Api(openai)
    endpoints = f"{_PATH}/webhook_endpoints"
    call = f"{_PATH}/realtime/calls/{{id}}"
    return [
        web.get("/openai/calls", api.show_calls),
        web.get(f"{_PATH}/models", api.keyed(api.models)),
        web.get(endpoints, api.keyed(api.list_endpoints)),
        web.post(endpoints, api.keyed(api.add_endpoint)),
        web.get(f"{endpoints}/{{id}}", api.keyed(api.show_endpoint)),
        web.post(f"{endpoints}/{{id}}", api.keyed(api.change_endpoint)),
        web.delete(f"{endpoints}/{{id}}", api.keyed(api.remove_endpoint)),
        web.post(f"{endpoints}/{{id}}/rotate_secret", api.keyed(api.rotate)),
        web.post(f"{endpoints}/{{id}}/test", api.keyed(api.test)),
        web.get(f"{_PATH}/realtime", api.keyed(api.attach)),
        web.post(f"{call}/accept", api.keyed(api.accept)),
        web.post(f"{call}/reject", api.keyed(api.reject)),
        web.post(f"{call}/refer", api.keyed(api.refer)),
        web.post(f"{call}/hangup", api.keyed(api.hang_up)),
    ]


class _Api:
    def __init__(self, openai: OpenAI) -> None:
        self._openai = openai

    def keyed(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler behind the key, which says the project."""

        async def handle(request: web.Request) -> web.StreamResponse:
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            try:
                project = await self._openai.authorise(
                    key.strip() if scheme.lower() == "bearer" else "", request.headers.get("OpenAI-Project")
                )
            except UnauthorizedError as error:
                raise _error(web.HTTPUnauthorized, str(error), code=error.code) from error
            if "/webhook_endpoints" in request.path and key.strip().startswith("sk-restricted"):
                raise _error(web.HTTPForbidden, "This key may not manage webhooks.", code="missing_scope")
            return await handler(request, project)

        return handle

    async def show_calls(self, _: web.Request) -> web.Response:
        return web.json_response({"calls": [call.shown() for call in reversed(self._openai.calls)]})

    async def models(self, _request: web.Request, _project: str) -> web.Response:
        return _listing([{"id": name, "object": "model", "created": 0, "owned_by": "sandbox"} for name in _MODELS])

    async def list_endpoints(self, _request: web.Request, project: str) -> web.Response:
        return _listing([endpoint.shown() for endpoint in self._openai.endpoints(project)])

    async def add_endpoint(self, request: web.Request, project: str) -> web.Response:
        made = await self._openai.add_endpoint(project, await _read(request, EndpointCreate))
        if made is None:
            raise _error(web.HTTPBadRequest, "This project has too many webhook endpoints.")
        return web.json_response({**made.shown(), "signing_secret": made.secret})

    async def show_endpoint(self, request: web.Request, project: str) -> web.Response:
        return web.json_response(self._endpoint(request, project).shown())

    async def change_endpoint(self, request: web.Request, project: str) -> web.Response:
        endpoint = self._endpoint(request, project)
        return web.json_response(
            (await self._openai.change_endpoint(endpoint, await _read(request, EndpointUpdate))).shown()
        )

    async def remove_endpoint(self, request: web.Request, project: str) -> web.Response:
        endpoint = self._endpoint(request, project)
        await self._openai.remove_endpoint(endpoint)
        return web.json_response({"id": endpoint.id, "deleted": True, "object": "webhook_endpoint.deleted"})

    async def rotate(self, request: web.Request, project: str) -> web.Response:
        endpoint, body = self._endpoint(request, project), await _read(request, Rotate)
        changed = await self._openai.rotate_secret(endpoint, keeps_old=body.keep_old_secret_active_for_24_hours)
        return web.json_response({**changed.shown(), "signing_secret": changed.secret})

    async def test(self, request: web.Request, project: str) -> web.Response:
        endpoint = self._endpoint(request, project)
        status = await self._openai.test(endpoint)
        return web.json_response(
            {
                "object": "webhook_endpoint.test_result",
                "webhook_endpoint_id": endpoint.id,
                "event_type": INCOMING_CALL,
                "success": status is not None and 200 <= status < 300,
                "status_code": status,
            }
        )

    async def accept(self, request: web.Request, project: str) -> web.Response:
        body = await _read(request, Accept)
        if body.model is not None and not body.model.startswith(_REALTIME):
            message = f"The model '{body.model}' does not exist or you do not have access to it."
            raise _error(web.HTTPBadRequest, message, code="model_not_found", param="model")
        return _decided(is_now=decide(self._call(request, project), body.model_dump(exclude_unset=True)))

    async def attach(self, request: web.Request, project: str) -> web.StreamResponse:
        """Serve the socket beside an accepted call: tell what is said, and take `response.create`."""
        call = self._openai.call(project, request.query.get("call_id", ""))
        if call is None or call.status != "accepted" or call.is_over:
            raise _error(web.HTTPNotFound, "No session found for this call_id.", code="call_id_not_found")
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=_LONGEST_EVENT_BYTES)
        await socket.prepare(request)
        await socket.send_json({"type": "session.created", "session": call.session})
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(_MOST_UNSENT)
        call.sockets.add(events)
        telling = asyncio.create_task(_tell_all(socket, events))
        try:
            async for message in socket:
                if message.type is not web.WSMsgType.TEXT:
                    break
                kind = _event_type(message.data)
                if kind == "response.create":
                    call.greeted.set()
                    await socket.send_json({"type": "response.created", "response": {"status": "in_progress"}})
                else:
                    problem = f"The sandbox does not know {str(kind)[:100]!r}."
                    error = {"type": "invalid_request_error", "message": problem}
                    await socket.send_json({"type": "error", "error": error})
        finally:
            call.sockets.discard(events)
            telling.cancel()
        return socket

    async def reject(self, request: web.Request, project: str) -> web.Response:
        body = await _read(request, Reject)
        return _decided(is_now=decide(self._call(request, project), None, body.status_code))

    async def refer(self, request: web.Request, project: str) -> web.Response:
        return _told(self._call(request, project), (await _read(request, Refer)).target_uri)

    async def hang_up(self, request: web.Request, project: str) -> web.Response:
        return _told(self._call(request, project), None)

    def _endpoint(self, request: web.Request, project: str) -> Endpoint:
        found = self._openai.endpoint(project, request.match_info["id"])
        if found is None:
            raise _error(web.HTTPNotFound, "No webhook endpoint with this id.", code="not_found")
        return found

    def _call(self, request: web.Request, project: str) -> RingingCall:
        found = self._openai.call(project, request.match_info["id"])
        if found is None:
            raise _error(web.HTTPNotFound, "No call with this id.", code="call_id_not_found")
        return found


async def _tell_all(socket: web.WebSocketResponse, events: "asyncio.Queue[dict[str, Any] | None]") -> None:
    with contextlib.suppress(ConnectionError):
        while (event := await events.get()) is not None:
            await socket.send_json(event)
        await socket.close()


def _event_type(text: str) -> object:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return event.get("type") if isinstance(event, dict) else None


def _told(call: RingingCall, target: str | None) -> web.Response:
    """Answer once the call is told; what comes of it shows in SIP alone, as at OpenAI."""
    if call.status != "accepted" or call.told.full():
        raise _error(web.HTTPNotFound, "This call is not going on.", code="call_id_not_found")
    call.told.put_nowait(target)
    return web.Response()


def _decided(*, is_now: bool) -> web.Response:
    if not is_now:
        raise _error(web.HTTPNotFound, "This call does not ring.", code="call_id_not_found")
    return web.Response()


async def _read(request: web.Request, model: type[Body]) -> Body:
    try:
        return model.model_validate_json(await request.read() or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param = ".".join(map(str, first["loc"]))
        raise _error(web.HTTPBadRequest, f"Invalid '{param}': {first['msg']}.", param=param) from error


def _listing(data: list[dict[str, Any]]) -> web.Response:
    ids = [each["id"] for each in data] or [None]
    return web.json_response(
        {"object": "list", "data": data, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}
    )


def _error(
    status: type[web.HTTPError], message: str, *, code: str | None = None, param: str | None = None
) -> web.HTTPError:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status(text=json.dumps({"error": error}), content_type="application/json")
