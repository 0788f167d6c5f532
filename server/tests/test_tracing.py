"""Traces and logs of the API as it is run, with a real receiver of OTLP: what belongs together is together."""

import hashlib
import json
import signal

import httpx2
import pytest
from voxpria_server.auth.service import DOCUMENTED_TEST_KEY

from server.tests.collector import Collector
from server.tests.edge_client import CALLER, NUMBER, TOKEN, Edge, Story
from server.tests.process import Process
from server.tests.receiver import Receiver

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "a secret of the customer's"
PASSWORD = "a password of a trunk's"


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def start(settings, database_url):
    started = []

    def _start(**environment: str) -> Process:
        started.append(Process(settings, database_url, **environment))
        return started[-1]

    yield _start
    for process in started:
        if not process.log.closed:
            process.end(signal.SIGKILL)


def client(process: Process, key: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=process.url, headers={"Authorization": f"Bearer {key}"}, timeout=120)


async def use(process: Process, receiver: Receiver) -> Story:
    """Make a webhook and a trunk, and have an edge tell of a call; until the webhook has heard of it."""
    story = Story()
    async with client(process, DOCUMENTED_TEST_KEY) as http, client(process, TOKEN) as edge:
        body = {"url": receiver.url, "events": ["call.ended"], "secret": SECRET}
        answer = await http.post("/v1/webhooks", json=body, headers={"traceparent": PARENT})
        assert answer.status_code == 201
        trunk = {
            "name": "T",
            "provider": "generic",
            "credentials": {"username": "u", "password": PASSWORD},
            "config": {"server": "127.0.0.1", "port": 9},
        }
        assert (await http.post("/v1/sip/trunks", json=trunk)).status_code == 201
        await Edge(edge).send(*story.completed())
        await Edge(edge).upload(story.id, b"ID3 what was said")
        assert (await http.get(f"/v1/calls/{story.id}")).status_code == 200
        assert (await http.get(f"/v1/calls?phone_number=%2B{NUMBER[1:]}")).status_code == 200
        assert (await http.get("/v1/nowhere/+15551112222")).status_code == 404
    await receiver.wait_for(1, seconds=240)
    return story


async def test_what_belongs_together_is_in_one_trace_and_in_the_logs(start, collector, receiver):
    process = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100")
    process.until("/healthz", 200)
    story = await use(process, receiver)
    call_trace = hashlib.sha256(story.id.encode()).hexdigest()[:32]
    wanted = {"call", "call invited", "call answered", "call ended", "webhook delivery"}
    spans = collector.until(lambda all_: wanted <= {span.name for span in all_ if span.trace_id == call_trace})
    process.end()

    of_call = {span.name: span for span in spans if span.trace_id == call_trace}
    root = of_call["call"]
    assert (root.parent_id, root.attributes["voxpria.call_id"]) == ("", story.id)
    assert root.attributes["voxpria.call.status"] == "completed"
    assert of_call["call ended"].parent_id == root.span_id
    assert of_call["webhook delivery"].parent_id == of_call["call ended"].span_id
    assert of_call["webhook delivery"].attributes["http.response.status_code"] == 200
    delivery = of_call["webhook delivery"]
    assert receiver.received[0].headers["traceparent"] == f"00-{call_trace}-{delivery.span_id}-01"

    ours = next(span for span in spans if span.trace_id == PARENT.split("-")[1] and span.name.startswith("POST "))
    assert ours.parent_id == PARENT.split("-")[2]
    assert ours.name == "POST /v1/webhooks"
    assert ours.attributes["http.route"] == "/v1/webhooks"
    assert ours.attributes["http.response.status_code"] == 201
    assert (ours.attributes["voxpria.account_id"], ours.attributes["voxpria.mode"]) == ("acct_sandbox", "test")
    statements = [span for span in spans if span.parent_id == ours.span_id and "db.query.text" in span.attributes]
    assert {"INSERT", "WITH"} <= {span.attributes["db.operation.name"] for span in statements}
    assert {span.service for span in spans} == {"voxpria-api"}

    everything = b"".join(collector.bodies)
    for secret in (DOCUMENTED_TEST_KEY, SECRET, PASSWORD, TOKEN, NUMBER[1:], CALLER[1:], "15551112222"):
        assert secret.encode() not in everything, secret

    lines = [json.loads(line) for line in process.log_text().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) >= 7
    assert all(line["request_id"].startswith("req_") and len(line["trace_id"]) == 32 for line in requests)
    about_the_call = [line for line in lines if story.id in json.dumps(line)]
    assert {line["event"] for line in about_the_call} >= {"request", "delivery attempted"}
    assert all(line["call_id"] == story.id for line in about_the_call)
    attempted = next(line for line in lines if line["event"] == "delivery attempted")
    assert attempted["trace_id"] == call_trace


async def test_a_dead_collector_holds_up_nothing_and_without_one_nothing_is_traced(start, collector, receiver):
    collector.close()
    process = start(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.url}/v1/traces", OTEL_BSP_SCHEDULE_DELAY="50")
    process.until("/v1/agents", 200)
    await use(process, receiver)
    assert process.end() < 10
    untraced = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SDK_DISABLED="true")
    assert "traceparent" not in untraced.until("/v1/agents", 200).headers
    untraced.end()
    lines = [json.loads(line) for line in untraced.log_text().splitlines()]
    assert all(line["request_id"] for line in lines if line["event"] == "request")
    assert not any("trace_id" in line or line["event"] == "traces are sent" for line in lines)
