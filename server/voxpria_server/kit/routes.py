"""A route of the public API: takes no parameter that it does not know, and no body that is not strict JSON."""

import math
import re
from collections.abc import Callable, Coroutine, Iterator
from functools import lru_cache
from json import JSONDecodeError
from typing import Any

import pydantic_core
from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from voxpria_server.kit.logs import name_ids

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NUL = "a character that can't be kept (NUL)"

_UNKEEPABLE = re.compile(rb"\\u0000|[eE]\+?[0-9]{3}|(?<![0-9])[0-9]{200}")
"""What JSON that holds something unkeepable has in it: a NUL, written in the one way there is, or a far number."""


class NamedRoute(APIRoute):
    """A route whose request's log lines carry the ids that stand in its path."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; `RequestMiddleware` takes the ids back from the log's context."""
        name_ids(scope["path_params"])
        await super().handle(scope, receive, send)


class Route(NamedRoute):
    """`APIRouter(route_class=Route)`: what FastAPI would pass over in silence is refused.

    Unknown query parameters, NaN and Infinity, numbers beyond them, lone surrogates, bad UTF-8, JSON nested too deep.
    """

    def get_route_handler(self) -> Handler:
        """Return FastAPI's own handler, with the stricter checks before it."""
        handle = super().get_route_handler()

        async def handle_body(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return self.strictly(handle_body)

    def strictly(self, handle: Handler) -> Handler:
        """Return `handle`, refusing query parameters that the endpoint does not have."""
        known = frozenset(_query_names(self.dependant))

        async def handle_strictly(request: Request) -> Response:
            _refuse_unknown(request, known)
            _refuse_nul(request)
            return await handle(request)

        return handle_strictly


class _StrictRequest(Request):
    """Reads JSON as RFC 8259 has it."""

    async def json(self) -> Any:  # noqa: ANN401  (whatever came)
        """Return the body; raise JSONDecodeError, which FastAPI takes for bad input, or UnkeepableError."""
        body = await self.body()
        content = read_json(body)
        if _UNKEEPABLE.search(body):
            refuse_unkeepable(content)
        return content


class UnkeepableError(HTTPException):
    """Something was sent that can't be kept; `field` is its place, as `config.language`, `what` says what it holds.

    An HTTPException, as that is what FastAPI lets through from the reading of a body.
    """

    def __init__(self, field: str, what: str) -> None:
        super().__init__(400)
        self.field, self.what = field, what


def refuse_unkeepable(content: object, place: tuple[str, ...] = ()) -> None:
    """Raise UnkeepableError if what JSON said holds a NUL, or a number that no double is near.

    The database keeps no NUL. A number beyond a double's range is one for Python, infinite for JavaScript, and what is
    infinite is no JSON: whoever was told of it would read another.
    """
    match content:
        case str() if "\0" in content:
            raise UnkeepableError(".".join(place) or "body", NUL)
        case int() | float() if not _is_double(content):
            raise UnkeepableError(".".join(place) or "body", "a number that is out of range")
        case dict():
            for name, value in content.items():
                refuse_unkeepable(name, (*place, name))
                refuse_unkeepable(value, (*place, name))
        case list():
            for position, value in enumerate(content):
                refuse_unkeepable(value, (*place, str(position)))


def _is_double(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def read_json(body: bytes) -> Any:  # noqa: ANN401  (whatever came)
    """Return what a body says; raise JSONDecodeError, with the cause, if it is not JSON as RFC 8259 has it."""
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise JSONDecodeError(str(error), "", 0) from None


def route_of(scope: Scope) -> str:
    """Return the template of the path that a request went to, as `/v1/calls/{call_id}`; `none` if it went nowhere."""
    app = scope.get("app")
    if app is None or "route" not in scope:
        return "none"
    return _templates(app).get(id(scope["route"]), "none")


@lru_cache(maxsize=4)
def _templates(app: FastAPI) -> dict[int, str]:
    contexts = iter_route_contexts(app.routes)
    return {id(context.original_route): str(context.path_format) for context in contexts}


def methods_at(app: FastAPI, path: str) -> str:
    """Return what `path` takes, as an Allow header says it. Starlette's own names the first route's methods only."""
    there = [route for route in iter_route_contexts(app.routes) if route.methods and route.path_regex.match(path)]
    fewest = min((str(route.path_format).count("{") for route in there), default=0)  # `/import` is no id
    methods = {
        method for route in there if str(route.path_format).count("{") == fewest for method in route.methods or ()
    }
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            raise _invalid("extra_forbidden", ("query", name[:100]), "not a known parameter")


def _refuse_nul(request: Request) -> None:
    """Refuse what the database can't keep, by its name."""
    if "\0" not in request.scope["path"] and b"%00" not in request.scope["query_string"]:
        return
    given = (("path", request.path_params), ("query", request.query_params))
    for where, name in ((where, name) for where, values in given for name in values if "\0" in values[name]):
        raise _invalid("value_error", (where, name), f"holds {NUL}")


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for each in dependant.dependencies:
        yield from _query_names(each)


def _invalid(kind: str, where: tuple[str, ...], message: str) -> RequestValidationError:
    return RequestValidationError([{"type": kind, "loc": where, "msg": message, "input": None}])
