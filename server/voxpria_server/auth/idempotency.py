"""`Idempotency-Key`: the first answer to a POST is kept, and given to whoever sends the same again.

The key's row is inserted in the request's transaction, before the work, and the answer is written into it after: so
work, answer and row are there together or not at all, also when the process is killed between any two of them. Other
requests of the same key wait until the first one's transaction ends: within one process they queue up, and the first of
another process looks again and again. Neither holds a connection while it waits.

What can't be one transaction: a POST that waits for durable work (`provision`, `reprovision-all`) commits its request
first. Killed after that, it has no kept answer, and the same key asks for the work again; which finds it done or under
way, as that work is safe to ask for twice.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import sqlalchemy as sa
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from voxpria_server import errors
from voxpria_server.auth import queries
from voxpria_server.auth.queries import Claim, ClaimedElsewhereError
from voxpria_server.auth.service import Caller
from voxpria_server.errors import ApiError, ConflictError, InvalidParameterError
from voxpria_server.kit.db import WAIT_SECONDS, Database, is_lock_timeout
from voxpria_server.kit.sealing import SealBrokenError, Sealer

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

HEADER = "Idempotency-Key"
KEPT_HOURS = 24
_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_EXPECTED = (ApiError, HTTPException, RequestValidationError)
_RETRY_AFTER_SECONDS = 2
_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 0.25


class Answer(msgspec.Struct, frozen=True):
    """What is kept of an answer; sealed, as it may show a secret that is shown once."""

    status: int
    headers: dict[str, str]
    body: bytes
    request_id: str = ""
    """The request that it answered first; none is known of what older releases kept."""


class Turns:
    """Has those of one name take turns within this process."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, name: str, timeout_seconds: float) -> AsyncIterator[None]:
        """Wait for the turn; raise 409 idempotency_conflict if it does not come in time."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(timeout_seconds):
                await lock.acquire()
        except TimeoutError:
            raise _under_way() from None
        try:
            yield
        finally:
            lock.release()


async def answer_once(request: Request, caller: Caller, handler: Handler) -> Response:
    """Return the handler's answer, or the kept one to the same request before.

    Raises 400, or 409 idempotency_conflict: the key came with other content before, or its first request goes on.
    """
    try:
        body = await request.body()
    except ClientDisconnect:
        return await handler(request)  # too long, or broken off: the handler finds the same, and says so
    claim = _claim(request, caller, body)
    turns: Turns = request.app.state.turns
    async with turns.take(claim.name, WAIT_SECONDS):
        return await _answer_in_time(request, body, claim, handler)


async def _answer_in_time(request: Request, body: bytes, claim: Claim, handler: Handler) -> Response:
    """Return the answer as soon as no other process has the key."""
    clock = asyncio.get_running_loop().time
    deadline, pause = clock() + WAIT_SECONDS, _PAUSE_SECONDS
    while True:
        try:
            return await _answer(Request(request.scope, _once_more(body)), claim, handler)
        except ClaimedElsewhereError:
            if clock() > deadline:
                raise _under_way() from None
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
        pause = min(pause * 2, _MAX_PAUSE_SECONDS)


async def _answer(request: Request, claim: Claim, handler: Handler) -> Response:
    database: Database = request.app.state.database
    sealer: Sealer = request.app.state.sealer
    async with database.waiting_transaction() as conn:
        try:
            kept = await queries.take_claim(conn, claim, KEPT_HOURS)
        except sa.exc.DBAPIError as error:
            if is_lock_timeout(error):
                raise _under_way() from None
            raise
        if kept is not None:
            return _replay(sealer, claim, kept.fingerprint, kept.sealed_answer)
        request.state.connection = conn
        response = await _work(conn, request, handler)
        answer = _answer_of(response, request.state.request_id)
        await queries.keep_answer(conn, claim, sealer.seal(msgspec.msgpack.encode(answer), claim.name))
    return response


async def _work(conn: AsyncConnection, request: Request, handler: Handler) -> Response:
    """Return the handler's answer, if it is one to keep; raise the others, which undoes the claim too."""
    try:
        async with conn.begin_nested():
            return await handler(request)
    except _EXPECTED as error:
        verdict = errors.as_api_error(error)
        if verdict.status >= HTTPStatus.INTERNAL_SERVER_ERROR or verdict.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise
        return errors.render(verdict, request.state.request_id, request.app.state.settings.docs_url)


def _once_more(body: bytes) -> Receive:
    """Return what gives the body again that was read here; whoever reads on has heard of no disconnect yet."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _claim(request: Request, caller: Caller, body: bytes) -> Claim:
    key = request.headers[HEADER]
    if _KEY.fullmatch(key) is None:
        raise InvalidParameterError("An idempotency key is 1 to 255 printable ASCII characters.", field=HEADER)
    digest = hashlib.sha256(request.scope["query_string"] + b"\0" + body).digest()
    target = f"{request.method} {request.scope['path']}"
    return Claim(caller.account_id, caller.mode, target, key, digest)


def _answer_of(response: Response, request_id: str) -> Answer:
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Answer(response.status_code, headers, bytes(response.body), request_id)


def _replay(sealer: Sealer, claim: Claim, fingerprint: bytes, sealed: bytes) -> Response:
    if fingerprint != claim.fingerprint:
        raise ConflictError(
            "This idempotency key came with another body or query before.",
            code="idempotency_conflict",
            details={"field": HEADER, "provided": claim.key},
        )
    try:
        answer = msgspec.msgpack.decode(sealer.open(sealed, claim.name), type=Answer)
    except SealBrokenError:
        raise ConflictError(
            "This request was answered, but the answer can't be opened any more.", code="idempotency_conflict"
        ) from None
    original = {"Original-Request": answer.request_id} if answer.request_id else {}
    return Response(answer.body, answer.status, {**answer.headers, **original, "Idempotent-Replayed": "true"})


def _under_way() -> ConflictError:
    return ConflictError(
        "The first request with this idempotency key is still under way; ask again shortly.",
        code="idempotency_conflict",
        headers={"Retry-After": str(_RETRY_AFTER_SECONDS)},
    )
