"""Traces, by OpenTelemetry, where its own standard variables say where to: OTEL_EXPORTER_OTLP_ENDPOINT and the others.

Without them nothing here runs or costs anything. With them, spans are put into a bounded queue (OTEL_BSP_…) that drops
what it can't take, and a thread sends them as OTLP over HTTP, so that no request waits for a collector.

A thing that lives long and is worked on by many processes (a call) has a trace of its own, whose id follows from the
thing's id: whoever knows the one knows the other, and nothing need be carried along. Everything else is carried as a
W3C `traceparent`, in HTTP's headers, in the arguments of a job, in an event's row.

No span holds a secret, a query's parameters, a phone number or an error's text: ids and types only.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from procrastinate import JobContext
from sqlalchemy.ext.asyncio import AsyncEngine

from voxpria_server.kit.logs import get_logger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_log = get_logger(__name__)
_w3c = TraceContextTextMapPropagator()
_provider: "TracerProvider | None" = None
_tracer: Tracer | None = None

JOB_ARGUMENT = "traceparent"
"""The argument of a job that says which trace it belongs to; taken out before the task is run."""

_LONGEST_QUERY = 2000
_CLOSE_MILLISECONDS = 800
_UNTRACED = nullcontext(trace.INVALID_SPAN)
"""What a block is in where nothing is traced: it costs nothing to enter, and may be entered any number of times."""
_chosen_ids: ContextVar[SpanContext | None] = ContextVar("chosen_ids", default=None)

Attributes = Mapping[str, str | int | float | bool | None]


def set_up(service: str) -> None:
    """Trace this process, if the environment says where to; the SDK is imported only then.

    `service` is the process's name, unless OTEL_SERVICE_NAME says another.
    """
    global _provider, _tracer  # noqa: PLW0603  (as with logs, a process has one way out for its traces)
    if not _is_wanted(os.environ):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415

    class Ids(RandomIdGenerator):
        """Random ids, unless others were chosen for a span."""

        def generate_span_id(self) -> int:
            chosen = _chosen_ids.get()
            return chosen.span_id if chosen else super().generate_span_id()

        def generate_trace_id(self) -> int:
            chosen = _chosen_ids.get()
            return chosen.trace_id if chosen else super().generate_trace_id()

    resource = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, id_generator=Ids(), shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("voxpria")
    _log.info("traces are sent", service=str(resource.attributes[SERVICE_NAME]))


async def close() -> None:
    """Send what waits, for a moment at most."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        await asyncio.to_thread(provider.force_flush, _CLOSE_MILLISECONDS)


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environment.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))


def is_on() -> bool:
    """Tell whether this process is traced."""
    return _tracer is not None


def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    within: Context | None = None,
) -> AbstractContextManager[Span]:
    """Trace what happens in the block, as a part of what happens around it or, where given, of the trace `within`.

    An exception is told by its type alone, and passed on.
    """
    return _UNTRACED if _tracer is None else _span(_tracer, name, attributes, kind, within)


@contextmanager
def _span(
    tracer: Tracer, name: str, attributes: Attributes | None, kind: SpanKind, within: Context | None
) -> Iterator[Span]:
    one = tracer.start_span(name, within, kind, _known(attributes))
    with trace.use_span(one, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield one
        except BaseException as error:
            failed(one, type(error).__name__)
            raise


def failed(one: Span, kind: str) -> None:
    """Say of a span that what it traces has failed, and how: the name of a kind of error, never its text."""
    one.set_attribute("error.type", kind)
    one.set_status(Status(StatusCode.ERROR))


def traceparent(context: Context | None = None) -> str | None:
    """Return where we are (or a context is), as W3C Trace Context has it; None outside of any trace."""
    return headers(context).get("traceparent")


def headers(context: Context | None = None) -> dict[str, str]:
    """Return the headers that tell whom we ask in which trace that is."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        _w3c.inject(carrier, context)
    return carrier


def within(parent: str | None) -> Context:
    """Return the context that a `traceparent` names; that of a trace yet to begin, if it names none."""
    return _w3c.extract({"traceparent": parent} if parent else {}, Context())


def of(thing_id: str) -> Context | None:
    """Return the context of the trace that belongs to a thing; None where nothing is traced."""
    context = _context_of(thing_id)
    return trace.set_span_in_context(NonRecordingSpan(context), Context()) if context else None


def tell(
    thing_id: str,
    name: str,
    *,
    began_at: datetime,
    ended_at: datetime,
    attributes: Attributes,
    steps: Mapping[str, datetime | None],
) -> None:
    """Add to a thing's trace the span that all others are within: the thing's whole life. `steps`: its moments."""
    context = _context_of(thing_id)
    if _tracer is None or context is None:
        return
    token = _chosen_ids.set(context)
    try:
        whole = _tracer.start_span(name, Context(), attributes=_known(attributes), start_time=_nanoseconds(began_at))
    finally:
        _chosen_ids.reset(token)
    for step, at in steps.items():
        if at is not None:
            whole.add_event(step, timestamp=_nanoseconds(at))
    whole.end(_nanoseconds(ended_at))


def _context_of(thing_id: str) -> SpanContext | None:
    """Return the ids that follow from a thing's. Hashed, as samplers expect the bits of a trace's id to be random."""
    if _provider is None:
        return None
    digest = hashlib.sha256(thing_id.encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
    decision = _provider.sampler.should_sample(None, trace_id, "").decision
    is_sampled = bool(decision.is_sampled())  # type: ignore[no-untyped-call]  # (the SDK's)
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


async def trace_job(run: Callable[[], Awaitable[Any]], context: JobContext, _worker: object) -> Any:  # noqa: ANN401
    """Run a job within the trace of what deferred it: middleware of the jobs' app."""
    parent = context.job.task_kwargs.pop(JOB_ARGUMENT, None)
    task = context.task.name if context.task else "unknown"
    attributes: Attributes = {
        "messaging.system": "procrastinate",
        "messaging.destination.name": context.job.queue,
        "voxpria.job.task": task,
        "voxpria.job.attempt": context.job.attempts + 1,
    }
    with span(f"job {task}", attributes, kind=SpanKind.CONSUMER, within=within(str(parent) if parent else None)):
        return await run()


def job_arguments(context: Context | None = None) -> dict[str, str]:
    """Return what a job's arguments must hold besides, so that it belongs to the present trace, or a context's."""
    parent = traceparent(context)
    return {JOB_ARGUMENT: parent} if parent else {}


def statement_span(statement: str) -> AbstractContextManager[Span]:
    """Trace a statement that goes to the database past SQLAlchemy."""
    if _tracer is None:
        return _UNTRACED
    return span(_operation(statement), _of_statement(statement), kind=SpanKind.CLIENT)


def watch(engine: AsyncEngine) -> None:
    """Trace every statement of an engine."""
    sa.event.listen(engine.sync_engine, "before_cursor_execute", _before)
    sa.event.listen(engine.sync_engine, "after_cursor_execute", _after)
    sa.event.listen(engine.sync_engine, "handle_error", _on_error)


def _before(
    _conn: object,
    _cursor: object,
    statement: str,
    _parameters: object,
    context: Any,  # noqa: ANN401  (SQLAlchemy's, and open to what one wants to keep)
    _many: object,
) -> None:
    if _tracer is not None and context is not None and trace.get_current_span().is_recording():
        context.span = _tracer.start_span(
            _operation(statement), kind=SpanKind.CLIENT, attributes=_known(_of_statement(statement))
        )


def _after(
    _conn: object, _cursor: object, _statement: object, _parameters: object, context: object, _many: object
) -> None:
    if (one := getattr(context, "span", None)) is not None:
        one.end()


def _on_error(problem: sa.engine.ExceptionContext) -> None:
    if (one := getattr(problem.execution_context, "span", None)) is not None:
        failed(one, type(problem.original_exception).__name__)
        one.end()


def _of_statement(statement: str) -> Attributes:
    """Parameters travel beside the statement, and are not told."""
    text = " ".join(statement.split())[:_LONGEST_QUERY]
    return {"db.system.name": "postgresql", "db.operation.name": _operation(statement), "db.query.text": text}


def _operation(statement: str) -> str:
    return statement.split(None, 1)[0].upper()


def _known(attributes: Attributes | None) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
