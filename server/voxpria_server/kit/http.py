"""What goes round every request: its id, its log line, and an answer whatever happens."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxpria_server.kit import logs, tracing
from voxpria_server.kit.ending import StoppedError, is_ending
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.metrics import count_request
from voxpria_server.kit.routes import route_of

_log = get_logger(__name__)
MAX_BODY_BYTES = 1 << 20
"""The longest body of a request, where its path has no limit of its own."""

_HEADER = b"x-request-id"

RenderFailure = Callable[[Exception, str], Response]


class RequestMiddleware:
    """Gives each request an id (`request.state.request_id`, `X-Request-Id`), logs it, and answers what it raises.

    What is put into `request.state.headers` goes out with the answer, whatever that will be.
    """

    def __init__(
        self, app: ASGIApp, render_failure: RenderFailure, unbounded_prefix: str, body_limits: Mapping[str, int]
    ) -> None:
        """`unbounded_prefix`: the paths whose handlers bound the body themselves; `body_limits`: bytes, by path."""
        self._app, self._render_failure = app, render_failure
        self._unbounded_prefix, self._body_limits = unbounded_prefix, body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id("req")
        headers: dict[str, str] = {}
        scope.setdefault("state", {}).update(request_id=request_id, headers=headers)
        span = tracing.span(scope["method"], kind=SpanKind.SERVER, within=_trace_of(scope))
        with logs.fields(request_id=request_id), span as recorded:
            sender = _Sender(send, request_id, headers)
            await self._serve(recorded, scope, self._bounded(scope["path"], receive), sender)

    def _bounded(self, path: str, receive: Receive) -> Receive:
        if path.startswith(self._unbounded_prefix):
            return receive
        return _Bounded(receive, self._body_limits.get(path, MAX_BODY_BYTES))

    async def _serve(self, span: Span, scope: Scope, receive: Receive, send: "_Sender") -> None:
        started_at = time.perf_counter()
        # HEAD is GET without the body (RFC 9110 section 9.3.2), which the server leaves out
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await self._app(asked, receive, send)
        except asyncio.CancelledError:
            if not is_ending():
                raise
            _log.warning("request broken off by the end of the process", path=_printable(scope["path"]))
            if send.status is None:
                await self._render_failure(StoppedError(), send.request_id)(scope, receive, send)
        except Exception as error:
            _log.exception("request raised", method=scope["method"], path=_printable(scope["path"]))
            if send.status is None:
                await self._render_failure(error, send.request_id)(scope, receive, send)
        seconds, method = time.perf_counter() - started_at, scope["method"]
        route = route_of(asked)
        count_request(method, route, send.status, seconds)
        if span.is_recording():
            _describe(span, scope, route, send)
        milliseconds = round(seconds * 1000, 1)
        _log.info(
            "request", method=method, path=_printable(scope["path"]), status=send.status, duration_ms=milliseconds
        )


def _trace_of(scope: Scope) -> Context | None:
    """Return the trace that a request belongs to by its headers, where it is traced at all."""
    if not tracing.is_on():
        return None
    return tracing.within(
        next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
    )


def _describe(span: Span, scope: Scope, route: str, send: "_Sender") -> None:
    """Say in a span what was asked and answered; not its path and query, which may hold phone numbers."""
    span.update_name(f"{scope['method']} {route}")
    caller = scope["state"].get("caller")
    attributes = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": send.status or 0,
        "voxpria.request_id": send.request_id,
        "voxpria.account_id": getattr(caller, "account_id", ""),
        "voxpria.mode": getattr(caller, "mode", ""),
    }
    span.set_attributes({name: value for name, value in attributes.items() if value})
    if send.status is None or send.status >= 500:
        tracing.failed(span, str(send.status or "none"))


class _Bounded:
    """Receives no more than a body may have."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._most, self._left = receive, most_bytes, most_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, f"A body has at most {self._most} bytes here.")
        return message


class _Sender:
    """Sends on, with the request's id in the headers, and whatever else belongs into those of every answer."""

    def __init__(self, send: Send, request_id: str, headers: dict[str, str]) -> None:
        self._send: Callable[[Message], Awaitable[None]] = send
        self.request_id, self._headers = request_id, headers
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = [(name.encode(), value.encode()) for name, value in self._headers.items()]
            message = {**message, "headers": [*message["headers"], (_HEADER, self.request_id.encode()), *ours]}
        await self._send(message)


def _printable(path: str) -> str:
    return (path if path.isascii() and path.isprintable() else re.sub(r"[^\x20-\x7e]", "?", path))[:200]
