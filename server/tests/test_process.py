"""The API process as it is run: it starts, loses its database, recovers by itself, and ends in time."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import httpx2
import psycopg
import pytest
from voxpria_server.parts import END_SECONDS

from server.tests.edge_client import TOKEN
from server.tests.process import PATIENCE_SECONDS, Process

ENDING_SECONDS = END_SECONDS + 6
"""What may pass until a process is gone, on a machine that is busy with other things."""


@pytest.fixture
def start(settings, own_cluster):
    started = []

    def _start() -> Process:
        started.append(Process(settings, own_cluster.url("postgres")))
        return started[-1]

    yield _start
    for process in started:
        if not process.log.closed:
            process.end(signal.SIGKILL)


def test_it_starts_on_an_empty_database_serves_and_ends_in_time(start):
    process = start()
    process.until("/healthz", 200)
    assert process.get("/v1/sip/trunks").json()["pagination"]["total"] == 0
    document = process.get("/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert "/v1/sip/trunks" in document["paths"]
    assert process.end() < ENDING_SECONDS


def test_what_is_no_http_is_answered_as_any_other_mistake(start):
    process = start()
    process.until("/healthz", 200)
    for request in (
        b"GET /v1/calls?phone_number=+1 212 HTTP/1.1\r\n\r\n",
        "GET /v1/agents/ü HTTP/1.1\r\n\r\n".encode(),
        b"FOO /v1/agents HTTP/1.1\r\n\r\n",
        b"GET /v1/agents HTTP/1.1\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):
        with socket.create_connection(("127.0.0.1", process.port), timeout=60) as client:
            client.sendall(request)
            answer = HTTPResponse(client)
            answer.begin()
            error = json.loads(answer.read())["error"]
            assert client.recv(1) == b""
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
        assert (error["code"], error["details"]) == ("invalid_parameter", {"field": "request"})
        assert error["request_id"] == answer.headers["X-Request-Id"]
        assert f'"{error["request_id"]}"' in process.log_text()
    process.end()


def test_it_lives_through_the_loss_of_its_database(start, own_cluster):
    process = start()
    process.until("/v1/agents", 200)
    own_cluster.stop(signal.SIGQUIT)
    started_at = time.monotonic()
    answer = process.get("/v1/agents")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "server_error")
    assert int(answer.headers["retry-after"]) > 0
    assert time.monotonic() - started_at < 10
    assert process.get("/healthz").status_code == 200
    parts = process.until("/readyz", 503).json()["parts"]
    assert parts["database"]["is_up"] is False
    own_cluster.start()
    process.until("/v1/agents", 200)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not process.get("/readyz").json()["parts"]["worker"]["is_up"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert process.end() < ENDING_SECONDS


def test_a_database_that_hangs_does_not_hang_us(start, own_cluster):
    process = start()
    process.until("/v1/agents", 200)
    with own_cluster.frozen():
        started_at = time.monotonic()
        assert process.get("/v1/agents", timeout=30).status_code == 503
        assert time.monotonic() - started_at < 25
    process.until("/v1/agents", 200)


def test_it_waits_for_a_database_that_is_late(start, own_cluster):
    own_cluster.stop()
    process = start()
    time.sleep(0.5)
    own_cluster.start()
    process.until("/v1/agents", 200)


def test_a_start_that_waits_for_its_database_can_be_ended(start, own_cluster):
    own_cluster.stop()
    process = start()
    process.until_logged("waiting for the database")
    assert process.end() < ENDING_SECONDS


def test_a_job_survives_the_crash_of_its_process(start, own_cluster):
    """Its worker's heart stops; another worker notices and takes the job over."""
    process = start()
    process.until("/v1/agents", 200)
    trunk = {"name": "T", "provider": "generic", "config": {"server": "127.0.0.1", "port": 9}}
    trunk_id = process.post("/v1/sip/trunks", trunk)["id"]
    number = {"phone_number": "+15555551234", "trunk_id": trunk_id}
    phone_id = process.post("/v1/phone-numbers/import", number)["id"]
    at_work = "SELECT FROM procrastinate_jobs WHERE status = 'doing' AND task_name = 'numbers:await-edges'"
    with psycopg.connect(own_cluster.url("postgres"), autocommit=True) as eyes:
        until(lambda: eyes.execute(at_work).fetchone() is not None)
    process.end(signal.SIGKILL)
    process = start()
    process.until("/v1/agents", 200)
    process.until_logged("job of a lost worker runs again", seconds=300)
    process.until_logged("no edge takes the routes of numbers")
    assert process.get(f"/v1/phone-numbers/{phone_id}").json()["status"] == "provisioning"


def test_it_ends_in_time_without_its_database(start, own_cluster):
    process = start()
    process.until("/v1/agents", 200)
    own_cluster.stop(signal.SIGQUIT)
    process.until("/readyz", 503)
    assert process.end() < ENDING_SECONDS


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stop_answers_who_waits_and_is_silent(start, own_cluster):
    process = start()
    process.until("/readyz", 503)  # no edge has ever reported
    with (
        ThreadPoolExecutor() as threads,
        psycopg.connect(own_cluster.url("postgres"), autocommit=True) as eyes,
        psycopg.connect(own_cluster.url("postgres")) as blocking,
    ):
        (version,) = eyes.execute("SELECT version FROM route_version").fetchone()

        def ask(path: str) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            return httpx2.get(f"{process.url}/edge/v1/{path}", headers=headers, timeout=PATIENCE_SECONDS)

        waiting = f"after={version}&wait_seconds=25"
        polls = [threads.submit(ask, f"{what}?edge_id=edge-{what}&{waiting}") for what in ("snapshot", "changes")]
        until(lambda: eyes.execute("SELECT count(*) FROM edges").fetchone() == (2,))
        blocking.execute("LOCK TABLE agents")
        blocked = threads.submit(process.get, "/v1/agents", PATIENCE_SECONDS)
        until(lambda: eyes.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone())
        assert process.end() < ENDING_SECONDS
    assert [poll.result().status_code for poll in polls] == [304, 304]
    assert (blocked.result().status_code, blocked.result().json()["error"]["code"]) == (503, "server_error")
    assert "Traceback" not in process.log_text()
    assert '"request broken off' in process.log_text()
