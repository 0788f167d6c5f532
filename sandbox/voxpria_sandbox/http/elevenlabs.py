"""The fake of ElevenLabs' phone number API (`/elevenlabs/v1/convai/phone-numbers`), with its shapes and errors."""

import asyncio
import secrets

from aiohttp import web

from voxpria_sandbox.elevenlabs import NumberImport, NumberStore, NumberTakenError, NumberUpdate, StoredNumber
from voxpria_sandbox.http import bodies
from voxpria_sandbox.numbers import NumberRefusedError, take_on

_PATH = "/elevenlabs/v1/convai/phone-numbers"


def routes(store: NumberStore, slow_seconds: float) -> list[web.RouteDef]:
    """Return the routes."""
    api = _Numbers(store, slow_seconds)
    return [
        web.post(_PATH, api.add),
        web.get(_PATH, api.list_all),
        web.get(f"{_PATH}/{{id}}", api.show),
        web.patch(f"{_PATH}/{{id}}", api.change),
        web.delete(f"{_PATH}/{{id}}", api.remove),
    ]


class _Numbers:
    def __init__(self, store: NumberStore, slow_seconds: float) -> None:
        self._store, self._slow_seconds = store, slow_seconds
        self._running: set[asyncio.Task[StoredNumber]] = set()

    async def add(self, request: web.Request) -> web.Response:
        check_key(request)
        body = await bodies.read(request, NumberImport)
        task = asyncio.create_task(self._import(body))  # goes on if the client does not wait, as at ElevenLabs
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        number = await asyncio.shield(task)
        return web.json_response({"phone_number_id": number.phone_number_id})

    async def _import(self, body: NumberImport) -> StoredNumber:
        try:
            await take_on(body.phone_number, self._slow_seconds)
            return await self._store.add(body)
        except NumberRefusedError as error:
            raise refuse(web.HTTPBadRequest, "validation_error", "phone_number_refused", str(error)) from error
        except NumberTakenError as error:
            message = "This phone number is already imported."
            raise refuse(web.HTTPConflict, "conflict", "phone_number_already_exists", message) from error
        except ValueError as error:
            raise _invalid(error) from error

    async def list_all(self, request: web.Request) -> web.Response:
        check_key(request)
        agent_id = request.query.get("agent_id")
        numbers = [n for n in self._store.all() if agent_id is None or n.agent_id == agent_id]
        return web.json_response([number.shown() for number in numbers])

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(request).shown())

    async def change(self, request: web.Request) -> web.Response:
        number = self._found(request)
        try:
            await self._store.change(number, await bodies.read(request, NumberUpdate))
        except ValueError as error:
            raise _invalid(error) from error
        return web.json_response(number.shown())

    async def remove(self, request: web.Request) -> web.Response:
        await self._store.remove(self._found(request).phone_number_id)
        return web.json_response({})

    def _found(self, request: web.Request) -> StoredNumber:
        check_key(request)
        number = self._store.get(request.match_info["id"])
        if number is None:
            message = "No phone number with this id."
            raise refuse(web.HTTPNotFound, "not_found", "phone_number_not_found", message)
        return number


def check_key(request: web.Request) -> None:
    """Raise a 401 without a key; every key is as good as any."""
    if not request.headers.get("xi-api-key", "").strip():
        message = "The header xi-api-key is missing."
        raise refuse(web.HTTPUnauthorized, "authentication_error", "invalid_api_key", message)


def refuse(status: type[web.HTTPError], kind: str, code: str, message: str) -> web.HTTPError:
    """Return an error in ElevenLabs' shape."""
    detail = {
        "type": kind,
        "code": code,
        "message": message,
        "status": code,
        "request_id": secrets.token_hex(16),
        "param": None,
    }
    return bodies.refusal(status, detail)


def _invalid(error: ValueError) -> web.HTTPError:
    detail = {"loc": ["body", "inbound_trunk_config", "credentials"], "msg": str(error), "type": "value_error"}
    return bodies.refusal(web.HTTPUnprocessableEntity, [detail])
