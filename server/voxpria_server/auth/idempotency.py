"""`Idempotency-Key`: the first answer to a POST is kept, and given to whoever sends the same again.

The key's row is inserted in the request's transaction, before the work, and the answer is written into it after: so
work, answer and row are there together or not at all, also when the process is killed between any two of them. Other
requests of the same key wait until the first one's transaction ends: within one process they queue up, and the first of
another process looks again and again. Neither holds a connection while it waits.

What can't be one transaction, as it waits for durable work or for others (`provision`, `reprovision-all`, a trunk's
test, a hang-up), is safe to ask for twice, and only its answer is kept, once there is one: the first that was kept is
given to all. Meanwhile it holds no connection, or a few slow ones would keep back every account's POSTs. An endpoint is
of this kind if it takes neither `Connection` nor `RequestDatabasePart`. For the same reason an account holds a few of
the others' connections at most; more of its requests wait.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
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
from voxpria_server.errors import ApiError, ConflictError, InvalidParameterError, UnavailableError
from voxpria_server.kit.db import WAIT_SECONDS, Database, Row, is_lock_timeout
from voxpria_server.kit.sealing import SealBrokenError, Sealer

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Attempt = Callable[[Request, Claim, Handler], Coroutine[Any, Any, Response]]

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
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, name: str, timeout_seconds: float, *, at_once: int = 1) -> AsyncIterator[None]:
        """Wait for the turn, which so many may have at once; raise TimeoutError if it does not come in time."""
        turn = self._turns.setdefault(name, asyncio.Semaphore(at_once))
        async with asyncio.timeout(timeout_seconds):
            await turn.acquire()
        try:
            yield
        finally:
            turn.release()


async def answer_once(request: Request, caller: Caller, handler: Handler) -> Response:
    """Return the handler's answer, or the kept one to the same request before; its deed and that are one transaction.

    Raises 400, or 409 idempotency_conflict: the key came with other content before, or its first request goes on.
    """
    return await _answer_in_turn(request, caller, handler, _answer)


async def answer_alike(request: Request, caller: Caller, handler: Handler) -> Response:
    """Return the answer of a handler whose deed is safe to ask for twice, or the kept one; raises as `answer_once`."""
    return await _answer_in_turn(request, caller, handler, _answer_then_keep)


async def _answer_in_turn(request: Request, caller: Caller, handler: Handler, attempt: Attempt) -> Response:
    try:
        body = await request.body()
    except ClientDisconnect:
        return await handler(request)  # too long, or broken off: the handler finds the same, and says so
    claim = _claim(request, caller, body)
    turns: Turns = request.app.state.turns
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(turns.take(claim.name, WAIT_SECONDS))
        except TimeoutError:
            raise _under_way() from None
        return await _answer_in_time(request, body, claim, handler, attempt)


async def _answer_in_time(request: Request, body: bytes, claim: Claim, handler: Handler, attempt: Attempt) -> Response:
    """Return the answer as soon as no other process has the key."""
    clock = asyncio.get_running_loop().time
    deadline, pause = clock() + WAIT_SECONDS, _PAUSE_SECONDS
    while True:
        try:
            return await attempt(Request(request.scope, _once_more(body)), claim, handler)
        except ClaimedElsewhereError:
            if clock() > deadline:
                raise _under_way() from None
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
        pause = min(pause * 2, _MAX_PAUSE_SECONDS)


async def _answer(request: Request, claim: Claim, handler: Handler) -> Response:
    async with _claimed(request, claim) as (conn, kept):
        if kept is not None:
            return _replay(request.app.state.sealer, claim, kept)
        request.state.connection = conn
        response = await _work(request, handler, conn.begin_nested())
        await _keep(conn, request, claim, response)
    return response


async def _answer_then_keep(request: Request, claim: Claim, handler: Handler) -> Response:
    database: Database = request.app.state.database
    async with database.read() as reading:
        kept = await queries.find_kept(reading, claim, KEPT_HOURS)
    if kept is not None:
        return _replay(request.app.state.sealer, claim, kept)
    response = await _work(request, handler, nullcontext())
    async with _claimed(request, claim) as (conn, kept):
        if kept is not None:
            return _replay(request.app.state.sealer, claim, kept)
        await _keep(conn, request, claim, response)
    return response


@asynccontextmanager
async def _claimed(request: Request, claim: Claim) -> AsyncIterator[tuple[AsyncConnection, Row | None]]:
    """Give a transaction that has the key, and what is kept of it already; few of an account have one at once."""
    database: Database = request.app.state.database
    turns: Turns = request.app.state.turns
    async with AsyncExitStack() as stack:
        owner = f"{claim.account_id} {claim.mode}"
        try:
            await stack.enter_async_context(turns.take(owner, WAIT_SECONDS, at_once=database.most_waiting_of_one))
        except TimeoutError:
            raise UnavailableError("Too many requests of this account are under way; try again shortly.") from None
        conn = await stack.enter_async_context(database.waiting_transaction())
        try:
            kept = await queries.take_claim(conn, claim, KEPT_HOURS)
        except sa.exc.DBAPIError as error:
            if is_lock_timeout(error):
                raise _under_way() from None
            raise
        yield conn, kept


async def _keep(conn: AsyncConnection, request: Request, claim: Claim, response: Response) -> None:
    sealer: Sealer = request.app.state.sealer
    answer = _answer_of(response, request.state.request_id)
    await queries.keep_answer(conn, claim, sealer.seal(msgspec.msgpack.encode(answer), claim.name))


async def _work(request: Request, handler: Handler, undone: AbstractAsyncContextManager[Any]) -> Response:
    """Return the handler's answer, if it is one to keep; raise the others, which undoes the claim too.

    `undone` undoes what the handler did before it raised.
    """
    try:
        async with undone:
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


def _replay(sealer: Sealer, claim: Claim, kept: Row) -> Response:
    if kept.fingerprint != claim.fingerprint:
        raise ConflictError(
            "This idempotency key came with another body or query before.",
            code="idempotency_conflict",
            details={"field": HEADER, "provided": claim.key},
        )
    try:
        answer = msgspec.msgpack.decode(sealer.open(kept.sealed_answer, claim.name), type=Answer)
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
