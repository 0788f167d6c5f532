"""A call that the API places in the sandbox: its callee answers, the agent speaks, the API hangs up."""

import json
from typing import Any

import httpx2
import pytest

from tests.product import Product, until

NUMBER = "+15555557301"
CALLEE = "+13035550177"
BUSY = "+15555552486"


@pytest.fixture(scope="module")
def number(product: Product) -> dict[str, Any]:
    """A number on a carrier's trunk that is recorded, answered by an ElevenLabs trunk."""
    first_message = "Hello, this is the bakery calling."
    return product.number_with_a_carrier(NUMBER, username="pl", password="pl-word", first_message=first_message)


def _answered(product: Product, call_id: str) -> dict[str, Any] | None:
    record = product.api("GET", f"/calls/{call_id}")
    assert record["status"] in ("queued", "in-progress"), record
    return record if record["answered_at"] else None


def _agents_side(product: Product, call_id: str) -> list[dict[str, Any]]:
    calls = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    return [call for call in calls if call["call_id"] == call_id]


def test_a_call_from_the_request_to_its_recording(product: Product, number: dict[str, Any]) -> None:
    hook = product.api(
        "POST",
        "/webhooks",
        {"url": f"{product.sandbox_url}/hooks/placed", "events": ["call.started", "call.ended", "call.failed"]},
        expect=201,
    )
    call = product.api(
        "POST",
        "/calls",
        {"from": NUMBER, "to": CALLEE, "variables": {"name": "Ada"}, "metadata": {"order": "42"}},
        expect=201,
    )
    assert (call["status"], call["direction"]) == ("queued", "outbound")
    until("the callee has answered", lambda: _answered(product, call["id"]))
    until(
        "the agent has spoken", lambda: any("bakery" in " ".join(s["said"]) for s in _agents_side(product, call["id"]))
    )
    sides = _agents_side(product, call["id"])
    assert {side["to"] for side in sides} == {CALLEE, NUMBER}
    until("both hear each other", lambda: all(s["packets_received"] > 50 for s in _agents_side(product, call["id"])))
    assert product.api("POST", f"/calls/{call['id']}/hangup", expect=200)["success"] is True
    record = product.ended_call(call["id"])
    assert (record["status"], record["ended_by"], record["end_cause"]) == ("completed", "api", "hangup")
    assert (record["from"], record["to"], record["direction"]) == (NUMBER, CALLEE, "outbound")
    assert record["metadata"]["order"] == "42"
    link = until("the recording", lambda: product.api("GET", f"/calls/{call['id']}")["recording_url"])
    assert httpx2.get(link, timeout=30).headers["content-type"] == "audio/mpeg"
    measured = until("quality is measured", lambda: product.api("GET", f"/calls/{call['id']}")["quality"])
    assert measured["caller"]["packets"] > 50
    assert measured["agent"]["packets"] > 50
    trace = until("the whole trace", lambda: _with_bye(product, call["id"]))
    invites = [m for m in trace["messages"] if m["summary"].startswith("INVITE ")]
    assert {m["leg"] for m in invites} == {"carrier", "agent"}
    assert {m["direction"] for m in invites} == {"sent"}
    until("both webhooks", lambda: len(_told(product, call["id"])) == 2)
    assert {told["event"] for told in _told(product, call["id"])} == {"call.started", "call.ended"}
    assert {told["data"]["direction"] for told in _told(product, call["id"])} == {"outbound"}
    product.api("DELETE", f"/webhooks/{hook['id']}")


def test_a_busy_callee_is_told_of(product: Product, number: dict[str, Any]) -> None:
    call = product.api("POST", "/calls", {"from": number["id"], "to": BUSY}, expect=201)
    record = product.ended_call(call["id"])
    assert (record["status"], record["sip_code"]) == ("busy", 486)
    assert "486" in record["explanation"]["summary"]


def _with_bye(product: Product, call_id: str) -> dict[str, Any] | None:
    trace = product.api("GET", f"/calls/{call_id}/trace")
    return trace if any(m["summary"].startswith("BYE ") for m in trace["messages"]) else None


def _told(product: Product, call_id: str) -> list[dict[str, Any]]:
    bodies = [json.loads(request["body"]) for request in product.sandbox_hook("placed")]
    return [body for body in bodies if body["data"].get("call_id") == call_id]
