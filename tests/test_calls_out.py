"""A call that a provider's agent places in the sandbox: out through the number's carrier."""

import json
from typing import Any

import httpx2
import pytest

from tests.product import Product, until

NUMBER = "+15555557201"
CALLEE = "+13035550199"


@pytest.fixture(scope="module")
def number(product: Product) -> dict[str, Any]:
    """A number on a carrier's trunk that is recorded, answered by an ElevenLabs trunk."""
    return product.number_with_a_carrier(NUMBER, username="out", password="out-word")


def call_out(product: Product, password: str = "out-word") -> dict[str, Any]:
    body = {"from": NUMBER, "to": CALLEE, "username": "out", "password": password, "seconds": 3}
    with httpx2.stream("POST", f"{product.sandbox_url}/agent/calls", json=body, timeout=60) as answer:
        answer.raise_for_status()
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    return dict(lines[-1])


def test_a_providers_agent_calls_out_through_the_numbers_carrier(product: Product, number: dict[str, Any]) -> None:
    result = call_out(product)
    assert result["answered"], result
    record = product.ended_call(result["call_id"])
    assert (record["direction"], record["from"], record["to"]) == ("outbound", NUMBER, CALLEE)
    assert (record["status"], record["ended_by"], record["phone_number"]) == ("completed", "agent", NUMBER)
    link = until("the recording", lambda: product.api("GET", f"/calls/{record['id']}")["recording_url"])
    assert httpx2.get(link, timeout=30).headers["content-type"] == "audio/mpeg"
    trace = until("the whole trace", lambda: _with_bye(product, record["id"]))
    out = [m for m in trace["messages"] if m["leg"] == "carrier" and m["summary"].startswith("INVITE ")]
    assert f"\r\nP-Asserted-Identity: <sip:{NUMBER}@sip.test.voxpria.com>\r\n" in out[0]["text"]
    assert f"From: <sip:{NUMBER}@sip.test.voxpria.com>" in out[0]["text"]


def test_elevenlabs_places_a_call_through_the_outbound_trunk_that_it_was_given(
    product: Product, number: dict[str, Any]
) -> None:
    convai, headers = f"{product.sandbox_url}/elevenlabs/v1/convai", {"xi-api-key": "sandbox"}
    numbers = httpx2.get(f"{convai}/phone-numbers", headers=headers, timeout=30).json()
    (there,) = (each for each in numbers if each["phone_number"] == NUMBER)
    assert there["outbound_trunk"]["address"] == f"127.0.0.1:{product.sip_tls_port}"
    body = {"agent_id": "agent_1", "agent_phone_number_id": there["phone_number_id"], "to_number": "+13035550198"}
    answer = httpx2.post(f"{convai}/sip-trunk/outbound-call", headers=headers, json=body, timeout=30).json()
    assert answer["success"], answer
    call = until("the call", lambda: _call_to(product, "+13035550198"))
    assert (call["from"], call["direction"]) == (NUMBER, "outbound")
    assert product.ended_call(call["id"])["status"] == "completed"


def test_a_wrong_password_places_nothing(product: Product, number: dict[str, Any]) -> None:
    result = call_out(product, password="guessed")
    assert (result["answered"], result["sip_code"]) == (False, 403)


def _call_to(product: Product, callee: str) -> dict[str, Any] | None:
    calls = product.api("GET", "/calls?direction=outbound")["data"]
    return next((call for call in calls if call["to"] == callee), None)


def _with_bye(product: Product, call_id: str) -> dict[str, Any] | None:
    trace = product.api("GET", f"/calls/{call_id}/trace")
    return trace if any(m["summary"].startswith("BYE ") for m in trace["messages"]) else None
