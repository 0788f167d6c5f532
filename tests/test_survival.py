"""What dies, and what lives on: the control plane in the middle of a call, and each part by kill -9."""

import concurrent.futures
import contextlib
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.product import ROLES, Product, until

NUMBER = "+15555551234"


@pytest.fixture(scope="module")
def number(product: Product) -> str:
    """A number in service; made here unless the first day's tests have made it."""
    listed = product.api("GET", "/phone-numbers?status=active")["data"]
    if any(held["number"] == NUMBER for held in listed):
        return NUMBER
    agent = product.api("POST", "/agents", {"name": "Survivor", "engine": "elevenlabs"}, expect=201)
    body: dict[str, Any] = {
        "name": "Survivor",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    trunk = product.api("POST", "/sip/trunks", body, expect=201)
    body = {"phone_number": NUMBER, "trunk_id": trunk["id"], "agent_id": agent["id"]}
    imported = product.api("POST", "/phone-numbers/import", body, expect=201)
    product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    return NUMBER


@contextlib.contextmanager
def frozen(product: Product, *roles: str) -> Iterator[None]:
    """Stop the processes of these parts dead (SIGSTOP), then end them with SIGKILL.

    A stopped part answers nobody, as a dead one, but its supervisor can't bring it back before we are done.
    """
    processes = [process for role in roles for process in product.pids(role)]
    assert processes
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def test_calls_go_on_and_new_ones_route_without_api_and_database(product: Product, number: str) -> None:
    before = {call["id"] for call in product.calls_to(number)}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        established = pool.submit(product.call, number, seconds=8)
        until("the first call is in the log", lambda: {c["id"] for c in product.calls_to(number)} - before)
        with frozen(product, "api", "postgres"):
            placed_blind = product.call(number, seconds=2)
            first = established.result(timeout=40)
    assert placed_blind["answered"], placed_blind
    assert first["answered"], first
    assert first["heard_speech_seconds"] > 1
    assert 7 <= first["duration_seconds"] <= 12
    until("everything is up again", product.is_ready, 60)
    records = [product.ended_call(result["call_id"]) for result in (first, placed_blind)]
    assert [record["status"] for record in records] == ["completed", "completed"]
    assert [record["ended_by"] for record in records] == ["caller", "caller"]
    assert abs(records[0]["duration"] - 8) <= 1
    assert abs(records[1]["duration"] - 2) <= 1
    until("exactly two calls came into the log", lambda: len(product.calls_to(number)) == len(before) + 2)


@pytest.mark.parametrize("role", list(ROLES))
def test_a_killed_part_comes_back_and_calls_work(product: Product, number: str, role: str) -> None:
    killed = product.pids(role)  # its workers outlive it by a moment, and would take a call to their graves
    product.main_pid(role).kill()
    until(f"{role} is other processes", lambda: product.pids(role) and not set(killed) & set(product.pids(role)), 30)
    until("everything is up again", product.is_ready, 60)
    result = until("a call is answered", lambda: _answered(product.call(number, seconds=1)), 30)
    assert product.ended_call(result["call_id"])["status"] == "completed"


def _answered(result: dict[str, Any]) -> dict[str, Any] | None:
    return result if result["answered"] else None


def test_no_call_is_left_open_when_kamailio_or_the_agent_dies_in_it(product: Product, number: str) -> None:
    began = datetime.now(UTC).replace(microsecond=0)  # a call of the tests before may be told of only now
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for role in ("agent", "kamailio"):
            running = pool.submit(product.call, number, seconds=4)
            until("the call is answered", lambda: _in_progress(product, number))
            product.main_pid(role).kill()
            running.result(timeout=60)
            until("everything is up again", product.is_ready, 60)
            until("no call is left open", lambda: not _open(product, number))
    assert sum(datetime.fromisoformat(call["started_at"]) >= began for call in product.calls_to(number)) == 2


def _open(product: Product, number: str) -> list[dict[str, Any]]:
    return [call for call in product.calls_to(number) if call["ended_at"] is None]


def _in_progress(product: Product, number: str) -> list[dict[str, Any]]:
    return [call for call in product.calls_to(number) if call["status"] == "in-progress" and call["answered_at"]]


def test_two_instances_run_side_by_side_and_ctrl_c_leaves_nothing(product: Product, another_folder: Path) -> None:
    with Product.started(another_folder) as other:
        assert product.is_ready()
        assert other.api("GET", "/sip/trunks")["pagination"]["total"] == 0
        processes = psutil.Process(other.process.pid).children(recursive=True)
        ports = (other.http_port, other.sip_port, other.sip_tls_port)
    assert other.process.returncode == 0
    left = [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not left
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert product.is_ready()
