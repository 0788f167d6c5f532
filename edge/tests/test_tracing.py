"""Traces that the edge sends, to a real receiver of OTLP: one a call, and what the control plane is asked within it."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from running_edge import RunningEdge
from sipp_tool import sipp
from voxpria_edge import tracing
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.tracing import CallSpans, Traces
from voxpria_routing import events
from voxpria_routing.decision import Explanation

from server.tests.collector import Collector
from tests.ports import free_port

CALL = "call_06e9q5m2z1v8k4t3x7c0p2d5r8"
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
CALLER, NUMBER = "+13038921234", "+15555551234"


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def ids_of(call_id: str) -> tuple[str, str]:
    """The ids that a call's trace and its whole have (docs/decisions/0017)."""
    digest = hashlib.sha256(call_id.encode()).hexdigest()
    return digest[:32], digest[32:48]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Traces:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traces(provider)


def of_a_call() -> list[events.CallEvent]:
    invited = events.Invited(
        id="i",
        call_id=CALL,
        at=AT,
        account_id="acct_1",
        mode="test",
        from_=CALLER,
        to=NUMBER,
        number_id="phone_1",
        trunk_id="trunk_carrier",
        agent_id=None,
        edge_id="edge_1",
        sip_call_id="x",
        source="127.0.0.8:5060",
        transport="udp",
        explanation=Explanation(summary=f"{NUMBER} goes to the agent."),
    )
    failed = {"cause": "unreachable", "sip_code": 0, "sip_reason": "", "server": "192.0.2.1:5060/udp"}
    timed = dict.fromkeys(("post_dial_delay_ms", "agent_ringing_ms", "agent_answer_ms", "carrier_ack_ms"))
    return [
        invited,
        events.Attempted(id="t", call_id=CALL, at=after(1), trunk_id="trunk_dead", **failed),
        events.Ringing(id="r", call_id=CALL, at=after(2)),
        events.Answered(id="a", call_id=CALL, at=after(3), recording=True, trunk_id="trunk_agent"),
        events.Ended(id="e", call_id=CALL, at=after(9), cause="hangup", by="caller", sip_code=200, sip_reason="OK"),
        events.Timed(id="d", call_id=CALL, at=after(9), edge_ms=12.5, **timed),
        events.Measured(
            id="m", call_id=CALL, at=after(10), source="packets", caller=None, agent=None, agent_first_audio_at=after(4)
        ),
        events.Recorded(id="c", call_id=CALL, at=after(11), duration_seconds=6.0, size_bytes=1234),
    ]


@pytest.mark.unit
def test_a_calls_events_are_spans_of_its_one_trace(traces: Traces, exporter: InMemorySpanExporter) -> None:
    spans = CallSpans(traces)
    for event in of_a_call():
        spans.take([event])
    found = [(span.name, span.start_time // 10**6, span.end_time // 10**6) for span in exporter.get_finished_spans()]
    began = int(AT.timestamp() * 1000)
    assert [(name, start - began, end - began) for name, start, end in found] == [
        ("provider leg", 0, 1000),
        ("provider leg", 1000, 9000),
        ("carrier leg", 0, 9000),
        ("decision", 0, 12),
        ("first audio", 3000, 4000),
        ("recording", 9000, 11000),
    ]
    trace_id, whole_id = ids_of(CALL)
    for span in exporter.get_finished_spans():
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (trace_id, whole_id)
        assert not {CALLER, NUMBER, "127.0.0.8", "192.0.2.1"} & set(map(str, span.attributes.values()))
    first, second, carrier, *_ = exporter.get_finished_spans()
    assert (first.attributes["error.type"], first.attributes["voxpria.trunk_id"]) == ("unreachable", "trunk_dead")
    assert ("error.type" in second.attributes, second.attributes["voxpria.trunk_id"]) == (False, "trunk_agent")
    assert [event.name for event in carrier.events] == ["ringing", "answered"]


@pytest.mark.unit
async def test_a_request_about_a_call_is_in_its_trace_and_its_failure_told_by_kind(
    traces: Traces, exporter: InMemorySpanExporter
) -> None:
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers.get("traceparent", ""))
        return web.json_response({}, status=200 if request.path.endswith("/events") else 503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    control_plane = ControlPlane(f"http://127.0.0.1:{port}", "token", "edge_1", traces)
    untraced = ControlPlane(f"http://127.0.0.1:{port}", "token", "edge_1")
    batch = events.Batch(edge_id="edge_1", events=tuple(of_a_call()))
    await control_plane.report(batch)
    with pytest.raises(ControlPlaneError):
        await control_plane.take(CALL)
    await untraced.report(batch)
    for each in (control_plane, untraced):
        await each.close()
    await runner.cleanup()
    reported, taken = exporter.get_finished_spans()
    trace_id, whole_id = ids_of(CALL)
    for span, header in zip((reported, taken), seen, strict=False):
        assert header == f"00-{trace_id}-{span.context.span_id:016x}-01"
        assert f"{span.parent.span_id:016x}" == whole_id
    assert [reported.name, taken.name] == ["POST /edge/v1/events", "POST /edge/v1/calls/{call_id}/take"]
    assert taken.attributes["error.type"] == "ControlPlaneError"
    assert seen[2] == ""


@pytest.mark.unit
def test_nothing_is_traced_unless_the_environment_says_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert tracing.set_up() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing.set_up() is None


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_a_real_call_is_one_trace(collector: Collector, tmp_path: Path, number: str, agent_port: int) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    (tmp_path / "edge").mkdir()
    with RunningEdge.started(tmp_path / "edge", settings) as edge:
        trunk = trunk_to(agent_port)
        edge.route([trunk], [number_on(trunk, number)])
        to = (edge.address, edge.sip_port)
        with (
            sipp("agent_answers", tmp_path, address=AGENT, port=agent_port) as agent,
            sipp("carrier_calls_and_hangs_up", tmp_path, address=CARRIER, to=to, number=number) as carrier,
        ):
            carrier.wait()
            agent.wait()
        call = edge.ended_call(carrier.sip_call_id)
        trace_id, whole_id = ids_of(call.id)
        wanted = {"carrier leg", "decision", "provider leg"}
        spans = collector.until(lambda all_: wanted <= {span.name for span in all_ if span.trace_id == trace_id})
    of_call = {span.name: span for span in spans if span.trace_id == trace_id}
    assert {of_call[name].parent_id for name in wanted} == {whole_id}
    assert not any(of_call[name].has_failed for name in wanted)
    assert of_call["carrier leg"].attributes["voxpria.call.end_cause"] == "hangup"
    assert {span.service for span in spans} == {"voxpria-edge"}
    assert number.encode() not in b"".join(collector.bodies)
