"""The API and its worker die by kill -9 between POST /v1/calls and the placing: a call is placed once, or failed."""

import contextlib
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest

from tests.product import TEST_KEY, Product, until

NUMBER = "+15555557601"
CALLEE = "+13035550161"


@pytest.fixture(scope="module")
def number(product: Product) -> dict[str, Any]:
    """A number on a carrier's trunk, answered by an ElevenLabs trunk."""
    carrier = product.api(
        "POST",
        "/sip/trunks",
        {
            "name": "Carrier that survives",
            "provider": "generic",
            "credentials": {"username": "test_user", "password": "test_pass"},
            "config": {"server": "sip.test.voxpria.com"},
        },
        expect=201,
    )
    agents = product.api(
        "POST",
        "/sip/trunks",
        {"name": "Agents survive", "provider": "elevenlabs", "credentials": {"username": "sv", "password": "sv-word"}},
        expect=201,
    )
    body = {
        "phone_number": NUMBER,
        "trunk_id": carrier["id"],
        "engine": "elevenlabs",
        "config": {"engine_trunk_id": agents["id"]},
    }
    imported = product.api("POST", "/phone-numbers/import", body, expect=201)
    product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    return product.api("GET", f"/phone-numbers/{imported['id']}")


@contextlib.contextmanager
def edge_waits(product: Product) -> Iterator[None]:
    """Hold the edge's agent back (SIGSTOP), so that it does not place the call meanwhile."""
    agents = product.pids("agent")
    assert agents
    for process in agents:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def kill_api(product: Product) -> None:
    """Kill the API and the worker in it, with all their processes."""
    for process in product.pids("api"):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def post(product: Product, order: str) -> httpx2.Response | None:
    """Ask for the call, as a client does that repeats itself; None if no answer came."""
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.post(
            f"{product.url}/v1/calls",
            json={"from": NUMBER, "to": CALLEE, "metadata": {"order": order}},
            headers={"Authorization": f"Bearer {TEST_KEY}", "Idempotency-Key": order},
            timeout=60,
        )
    return None


def asked_again(product: Product, order: str) -> str | None:
    answer = post(product, order)
    return str(answer.json()["id"]) if answer is not None and answer.status_code == 201 else None


def is_over(product: Product, call_id: str) -> dict[str, Any] | None:
    """The call's record once it is over; one that somebody has answered is hung up."""
    record = product.api("GET", f"/calls/{call_id}")
    if record["status"] == "in-progress" and record["answered_at"]:
        product.api("POST", f"/calls/{call_id}/hangup")
    return record if record["status"] not in ("queued", "in-progress") else None


def times_dialled(product: Product, call_id: str) -> int:
    """How often the callee was called: its carrier's side of the call."""
    calls = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    return len([call for call in calls if call["call_id"] == call_id and call["to"] == CALLEE])


@pytest.mark.parametrize("moment", ["after the answer", "while it is asked"])
def test_a_call_is_placed_once_or_failed_when_the_api_and_its_worker_are_killed(
    product: Product, number: dict[str, Any], moment: str
) -> None:
    order = str(uuid.uuid4())
    with edge_waits(product):
        if moment == "after the answer":
            answer = post(product, order)
            assert answer is not None
            assert answer.status_code == 201, answer.text
            kill_api(product)
        else:
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(post, product, order)
                kill_api(product)
                asked.result()
    call_id = until("it is asked for again", lambda: asked_again(product, order), 120)
    record = until("the call is over", lambda: is_over(product, call_id), 300)
    assert record["status"] in ("completed", "failed"), record
    assert record["status"] == "completed" or record["explanation"]["summary"]
    assert times_dialled(product, call_id) <= 1
    assert times_dialled(product, call_id) == 1 or not record["answered_at"]
    of_order = [call for call in product.calls_to(NUMBER) if _order(product, call["id"]) == order]
    assert [call["id"] for call in of_order] == [call_id]
    until("everything is up again", product.is_ready, 120)


def _order(product: Product, call_id: str) -> str | None:
    order: str | None = product.api("GET", f"/calls/{call_id}")["metadata"].get("order")
    return order
