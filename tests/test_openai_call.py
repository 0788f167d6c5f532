"""A call to an OpenAI number, through the real edge: it rings at the sandbox's OpenAI until our API accepts it."""

from typing import Any

import httpx2
import pytest

from tests.product import Product, until

NUMBER = "+15555550190"
WORDS = "Have you a room for tonight?"
INSTRUCTIONS = "You are the reception of a small hotel."


@pytest.fixture(scope="module")
def number(product: Product) -> dict[str, Any]:
    """A number of an OpenAI trunk, provisioned."""
    credentials = {"project_id": "proj_hotel", "api_key": "sk-proj-hotel", "webhook_secret": "whsec_def456"}
    trunk = product.api("POST", "/sip/trunks", {"name": "OpenAI", "provider": "openai", "credentials": credentials})
    agent = {"name": "Reception", "engine": "openai", "instructions": INSTRUCTIONS, "voice": "marin"}
    agent_id = product.api("POST", "/agents", agent)["id"]
    body = {"phone_number": NUMBER, "trunk_id": trunk["id"], "engine": "openai", "agent_id": agent_id}
    body["config"] = {"first_message": "Good evening!"}
    phone_id = product.api("POST", "/phone-numbers/import", body)["id"]
    answer = product.api("POST", f"/sip/trunks/{trunk['id']}/provision")
    assert (answer["status"], answer["webhook_is_registered"]) == ("provisioned", True)
    until("the number is active", lambda: product.api("GET", f"/phone-numbers/{phone_id}")["status"] == "active", 20)
    return product.api("GET", f"/phone-numbers/{phone_id}")


def test_the_call_is_accepted_with_the_numbers_agent(product: Product, number: dict[str, Any]) -> None:
    result = product.call(NUMBER, seconds=4, say=WORDS)
    assert result["answered"], result
    record = product.ended_call(result["call_id"])
    assert (record["status"], record["sip_code"], record["agent_id"]) == ("completed", 200, number["agent_id"])
    seen = httpx2.get(f"{product.sandbox_url}/openai/calls", timeout=10).json()["calls"][0]
    assert (seen["project"], seen["status"]) == ("proj_hotel", "accepted")
    assert seen["session"]["instructions"].startswith(INSTRUCTIONS)
    assert "Good evening!" in seen["session"]["instructions"]
    assert seen["greeted"], "the agent was not told to speak first"
    assert seen["session"]["audio"]["output"]["voice"] == "marin"
    record = until("the transcript is there", lambda: _transcribed(product, record["id"]))
    said = {segment["speaker"]: segment["text"] for segment in record["transcript"]["segments"]}
    assert said == {"agent": "Good evening!", "caller": WORDS}


def _transcribed(product: Product, call_id: str) -> dict[str, Any] | None:
    record = product.api("GET", f"/calls/{call_id}")
    return record if record["transcript"] else None
