"""GET routes without FastAPI's machinery at run time, which costs more than a query does.

An endpoint is declared as any other, and its route, parameters and dependencies are FastAPI's own; what is left out is
the search through every router, the exit stacks and the general solver. It applies to a GET whose endpoint returns its
Response itself and depends on nothing that has to be closed again (`plan_of`); every other route goes the usual way.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from re import Pattern
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.types import ASGIApp, Receive, Scope, Send

from voxpria_server.kit.logs import name_ids

Read = Callable[[Request], Coroutine[Any, Any, Response]]
Render = Callable[[Request, Exception], Coroutine[Any, Any, Response]]
_OTHER_NEEDS = (
    *("header_params", "cookie_params", "body_params", "websocket_param_name", "http_connection_param_name"),
    *("response_param_name", "background_tasks_param_name", "security_scopes_param_name"),
)


_NO_QUERY: dict[str, str] = {}


@dataclass(frozen=True)
class Parameter:
    """A parameter of the path or the query."""

    where: str
    name: str
    alias: str
    default: Any
    """The ellipsis if it must be sent."""
    field: Any
    """FastAPI's."""
    is_any_text: bool
    """True if whatever is sent is right as it is."""

    @classmethod
    def of(cls, where: str, field: Any) -> "Parameter":  # noqa: ANN401
        """Return the parameter of FastAPI's field."""
        default = ... if field.field_info.is_required() else field.default
        is_any_text = field.field_info.annotation is str and not field.field_info.metadata
        return cls(where, field.name, field.alias, default, field, is_any_text)

    def check(self, raw: object, errors: list[Any]) -> object:
        """Return the value that was sent as it is declared to be, or add to `errors`."""
        where = (self.where, self.alias)
        if raw is ...:
            errors.append({"type": "missing", "loc": where, "msg": "Field required", "input": None})
            return None
        if self.is_any_text:
            return raw
        value, wrong = self.field.validate(raw, loc=where)
        errors += wrong
        return value


@dataclass(frozen=True)
class Plan:
    """How an endpoint or a dependency is called."""

    call: Callable[..., Coroutine[Any, Any, Any]]
    request_name: str | None
    parameters: tuple[Parameter, ...]
    needs: tuple[tuple[str | None, "Plan"], ...]

    async def answer(self, request: Request) -> Response:
        """Return the endpoint's answer; raise RequestValidationError."""
        errors: list[Any] = []
        values = await self._values(request, errors)
        if errors:
            raise RequestValidationError(errors)
        response: Response = await self.call(**values)
        return response

    async def _values(self, request: Request, errors: list[Any]) -> dict[str, Any]:
        """Return what the call is given; add to `errors` what was sent wrong, after which nothing is called."""
        values: dict[str, Any] = {} if self.request_name is None else {self.request_name: request}
        for name, need in self.needs:
            needed = {need.only_request: request} if need.only_request else await need._values(request, errors)
            if not errors:
                result = await need.call(**needed)
                if name is not None:
                    values[name] = result
        if self.parameters:
            self._add_sent(values, request, errors)
        return values

    @cached_property
    def only_request(self) -> str | None:
        """By which name the call takes the request, if it takes nothing else."""
        return None if self.needs or self.parameters else self.request_name

    def _add_sent(self, values: dict[str, Any], request: Request, errors: list[Any]) -> None:
        """Add what was sent in path and query, or its default."""
        query = request.query_params if request.scope["query_string"] else _NO_QUERY
        given = {"path": request.path_params, "query": query}
        for parameter in self.parameters:
            raw = given[parameter.where].get(parameter.alias, parameter.default)
            if raw is parameter.default and raw is not ...:
                values[parameter.name] = raw
            else:
                values[parameter.name] = parameter.check(raw, errors)


def plan_of(dependant: Dependant, *, is_endpoint: bool = True) -> Plan | None:
    """Return how to call an endpoint; None if it takes more than that."""
    call: Any = dependant.call
    if any(getattr(dependant, name) for name in _OTHER_NEEDS) or not _is_coroutine(call):
        return None
    if is_endpoint and call.__annotations__.get("return") is not Response:
        return None
    needs: list[tuple[str | None, Plan]] = []
    for each in dependant.dependencies:
        need = plan_of(each, is_endpoint=False)
        if need is None:
            return None
        needs.append((each.name, need))
    path = [Parameter.of("path", field) for field in dependant.path_params]
    query = [Parameter.of("query", field) for field in dependant.query_params]
    return Plan(call, dependant.request_param_name, (*path, *query), tuple(needs))


class Reads:
    """Middleware: answers the GETs whose routes have a `read`, and passes all other requests on."""

    def __init__(self, app: ASGIApp, render: Render, rendered: tuple[type[Exception], ...]) -> None:
        """`render` answers for the kinds of exceptions `rendered`."""
        self._app, self._render, self._rendered = app, render, rendered
        self._routes: dict[int, list[tuple[Pattern[str], Any]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = self._find(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = found
        name_ids(found[1])
        request = Request(scope, receive, send)
        try:
            response = await found[0].read(request)
        except self._rendered as error:
            response = await self._render(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[Any, dict[str, str]] | None:
        if self._routes is None:
            self._routes = _by_length(scope["app"])
        path: str = scope["path"]
        for pattern, route in self._routes.get(path.count("/"), ()):
            if match := pattern.match(path):
                return (route, match.groupdict()) if getattr(route, "read", None) else None
        return None


def _by_length(app: FastAPI) -> dict[int, list[tuple[Pattern[str], Any]]]:
    """Return the GET routes in their order, by how many segments their paths have."""
    found: defaultdict[int, list[tuple[Pattern[str], Any]]] = defaultdict(list)
    for context in iter_route_contexts(app.routes):
        if context.methods and "GET" in context.methods:
            found[str(context.path_format).count("/")].append((context.path_regex, context.original_route))
    return found


def _is_coroutine(call: Any) -> bool:  # noqa: ANN401  (whatever was declared)
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)
