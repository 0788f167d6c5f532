"""A collector of traces: takes OTLP over HTTP as a real one does, and gives the spans as plain values."""

import gzip
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue


@dataclass(frozen=True)
class Span:
    """One span that came. Ids are hexadecimal; a root has the parent ''."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    has_failed: bool


class Collector:
    """A running collector; `status` is what it answers."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                assert self.headers["content-type"] == "application/x-protobuf"
                collector._take(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def until(self, wanted: Callable[[list[Span]], object], seconds: float = 240) -> list[Span]:
        """Return the spans once they are such as are `wanted`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not wanted(self.spans):
                left = deadline - time.monotonic()
                assert left > 0, sorted({(span.service, span.name) for span in self.spans})
                self._changed.wait(left)
            return list(self.spans)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            Span(
                service=str(_plain(resource.resource.attributes)["service.name"]),
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                attributes=_plain(span.attributes),
                has_failed=span.status.code == 2,
            )
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self.bodies.append(body)
            self.spans += spans
            self._changed.notify_all()


def _plain(attributes) -> dict[str, object]:
    def value(one: AnyValue) -> object:
        return getattr(one, one.WhichOneof("value"))

    return {attribute.key: value(attribute.value) for attribute in attributes}
