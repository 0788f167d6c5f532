"""Traces of calls, by OpenTelemetry, where its own standard variables (OTEL_EXPORTER_OTLP_ENDPOINT …) say where to.

A call has one trace, whose ids follow from the call's own as the control plane has them (docs/decisions/0017): what the
edge tells of it, and what the control plane does about it, are one trace, and nothing need be carried along. The spans
are made of the events once these are on disk, so tracing is in no call's way; without the variables none of it runs.

No span holds a phone number, an address or a secret.
"""

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from voxpria_routing import events
from voxpria_routing.events import CallEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE = "voxpria-edge"
_CLOSE_MILLISECONDS = 800
_MOST_LINKS = 32
_MOST_CALLS = 10_000
"""More than are open on an edge, or ended so lately that something of them is still to come."""
_w3c = TraceContextTextMapPropagator()
Attributes = Mapping[str, str | int | float | bool | None]


class Traces:
    """The way out for this process's spans: a bounded queue, and a thread that sends."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("voxpria")

    async def close(self) -> None:
        """Send what waits, for a moment at most."""
        await asyncio.to_thread(self._provider.force_flush, _CLOSE_MILLISECONDS)

    def tell(
        self,
        call_id: str,
        name: str,
        began_at: datetime,
        ended_at: datetime,
        attributes: Attributes,
        *,
        failure: str | None = None,
        moments: Mapping[str, datetime | None] | None = None,
    ) -> None:
        """Add to a call's trace what began and ended then; `failure` is a kind, `moments` are what happened within."""
        known = {key: value for key, value in {"voxpria.call_id": call_id, **attributes}.items() if value is not None}
        one = self._tracer.start_span(name, self._of(call_id), attributes=known, start_time=_nanoseconds(began_at))
        for moment, at in (moments or {}).items():
            if at is not None:
                one.add_event(moment, timestamp=_nanoseconds(at))
        if failure is not None:
            _fail(one, failure)
        one.end(_nanoseconds(max(began_at, ended_at)))

    @contextmanager
    def request(self, name: str, call_ids: Collection[str]) -> Iterator[dict[str, str]]:
        """Trace a request about calls, within the trace of one or linked to those of many; give the headers for it."""
        parents = [self._of(call_id) for call_id in list(call_ids)[:_MOST_LINKS]]
        within = parents[0] if len(call_ids) == 1 else Context()
        links = [Link(trace.get_current_span(parent).get_span_context()) for parent in parents]
        one = self._tracer.start_span(name, within, SpanKind.CLIENT, links=links if len(call_ids) > 1 else ())
        headers: dict[str, str] = {}
        _w3c.inject(headers, trace.set_span_in_context(one, Context()))
        try:
            yield headers
        except BaseException as error:
            _fail(one, type(error).__name__)
            raise
        finally:
            one.end()

    def _of(self, call_id: str) -> Context:
        """Return the context that all spans of a call are within, as the control plane's `kit.tracing` has it."""
        digest = hashlib.sha256(call_id.encode()).digest()
        trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")
        decision = self._provider.sampler.should_sample(None, trace_id, "").decision
        is_sampled = bool(decision.is_sampled())  # type: ignore[no-untyped-call]  # (the SDK's)
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        root = SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(NonRecordingSpan(root), Context())


@dataclass
class _Told:
    """What has been told of a call so far."""

    invited: events.Invited
    leg_began_at: datetime
    ringing_at: datetime | None = None
    answered: events.Answered | None = None
    ended: events.Ended | None = None


class CallSpans:
    """Makes spans of events. Of calls that began before this process did, nothing is told."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._calls: OrderedDict[str, _Told] = OrderedDict()

    def take(self, told: Sequence[CallEvent]) -> None:
        """Take events, in their order."""
        for event in told:
            if isinstance(event, events.Invited):
                self._calls[event.call_id] = _Told(event, event.at)
                if len(self._calls) > _MOST_CALLS:
                    self._calls.popitem(last=False)
            elif (call := self._calls.get(event.call_id)) is not None:
                self._advance(call, event)

    def _advance(self, call: _Told, event: CallEvent) -> None:
        match event:
            case events.Ringing():
                call.ringing_at = call.ringing_at or event.at
            case events.Answered():
                call.answered = event
            case events.Attempted():
                self._provider_leg(call, event, event.trunk_id)
                call.leg_began_at, call.ringing_at = event.at, None
            case events.Ended():
                call.ended = event
                self._legs(call, event)
            case events.Timed():
                took = timedelta(milliseconds=event.edge_ms or 0)
                self._decision(call, call.invited.at + took)
            case events.Measured():
                self._first_audio(call, event)
            case events.Recorded() | events.RecordingFailed():
                self._recording(call, event)
                del self._calls[event.call_id]
            case _:
                pass

    def _legs(self, call: _Told, ended: events.Ended) -> None:
        invited = call.invited
        if invited.refusal is None:
            self._provider_leg(call, ended, call.answered.trunk_id if call.answered else None)
        else:
            self._decision(call, ended.at)
        self._traces.tell(
            invited.call_id,
            "carrier leg",
            invited.at,
            ended.at,
            {
                "voxpria.account_id": invited.account_id,
                "voxpria.mode": invited.mode,
                "voxpria.edge_id": invited.edge_id,
                "voxpria.trunk_id": invited.trunk_id,
                "voxpria.call.direction": invited.direction,
                "network.transport": invited.transport or None,
                **_end(ended),
            },
            failure=None if call.answered else ended.cause,
            moments={"ringing": call.ringing_at, "answered": call.answered.at if call.answered else None},
        )

    def _decision(self, call: _Told, ended_at: datetime) -> None:
        invited = call.invited
        attributes: Attributes = {"voxpria.call.refusal": invited.refusal and str(invited.refusal.value)}
        self._traces.tell(invited.call_id, "decision", invited.at, ended_at, attributes)

    def _provider_leg(self, call: _Told, over: events.Ended | events.Attempted, trunk_id: str | None) -> None:
        answered = call.answered
        self._traces.tell(
            over.call_id,
            "provider leg",
            call.leg_began_at,
            over.at,
            {"voxpria.trunk_id": trunk_id, **_end(over)},
            failure=None if answered else over.cause,
            moments={"ringing": call.ringing_at, "answered": answered.at if answered else None},
        )

    def _first_audio(self, call: _Told, measured: events.Measured) -> None:
        first = {"caller": measured.caller_first_audio_at, "agent": measured.agent_first_audio_at}
        heard = [at for at in first.values() if at is not None]
        if call.answered is None or not heard:
            return
        attributes: Attributes = {"voxpria.call.issues": ",".join(measured.issues) or None}
        self._traces.tell(measured.call_id, "first audio", call.answered.at, max(heard), attributes, moments=first)

    def _recording(self, call: _Told, made: events.Recorded | events.RecordingFailed) -> None:
        began_at = call.ended.at if call.ended else made.at
        has_failed = isinstance(made, events.RecordingFailed)
        attributes: Attributes = {}
        if isinstance(made, events.Recorded):
            attributes = {
                "voxpria.recording.bytes": made.size_bytes,
                "voxpria.recording.seconds": made.duration_seconds,
            }
        failure = "recording_failed" if has_failed else None
        self._traces.tell(made.call_id, "recording", began_at, made.at, attributes, failure=failure)


def set_up() -> Traces | None:
    """Return the way out for traces if the environment says where to, else None; the SDK is imported only then."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_")):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({SERVICE_NAME: SERVICE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


def _fail(one: Span, kind: str) -> None:
    """Say of a span that what it traces failed, and how: never an error's text."""
    one.set_attribute("error.type", kind)
    one.set_status(Status(StatusCode.ERROR))


def _end(over: events.Ended | events.Attempted) -> Attributes:
    return {
        "voxpria.call.end_cause": over.cause,
        "voxpria.call.sip_code": over.sip_code,
        "voxpria.call.ended_by": over.by if isinstance(over, events.Ended) else None,
    }


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
