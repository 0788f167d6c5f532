"""What was said in a real call comes back as its transcript, by the provider's own API."""

from datetime import datetime
from typing import Any

from tests.product import Product, until

NUMBER = "+15555557002"
GREETING = "Good morning, this is the transcript's test."
WORDS = "I would like to hear myself in writing."


def _transcribed(product: Product, call_id: str) -> dict[str, Any] | None:
    record = product.api("GET", f"/calls/{call_id}")
    return record if record["transcript"] else None


def test_a_call_to_an_elevenlabs_agent_has_its_transcript(product: Product) -> None:
    credentials = {"username": "user", "password": "secret-word"}
    body = {"name": "Transcribed", "provider": "elevenlabs", "credentials": credentials}
    trunk = product.api("POST", "/sip/trunks", body, expect=201)
    number = product.api(
        "POST",
        "/phone-numbers/import",
        {
            "phone_number": NUMBER,
            "trunk_id": trunk["id"],
            "agent_id": "agent_at_elevenlabs",
            "config": {"first_message": GREETING},
        },
        expect=201,
    )
    product.api("POST", f"/phone-numbers/{number['id']}/provision", expect=200)
    result = product.call(NUMBER, seconds=4, say=WORDS)
    assert result["answered"], result
    ended = product.ended_call(result["call_id"])
    record = until("the transcript is there", lambda: _transcribed(product, ended["id"]), seconds=60)
    segments = record["transcript"]["segments"]
    assert {(segment["speaker"], segment["text"]) for segment in segments} == {("agent", GREETING), ("caller", WORDS)}
    begun, over = (datetime.fromisoformat(record[name]) for name in ("started_at", "ended_at"))
    times = [datetime.fromisoformat(segment["timestamp"]) for segment in segments]
    assert times == sorted(times)
    assert all(begun <= time <= over for time in times)
    (listed,) = [call for call in product.calls_to(NUMBER) if call["id"] == record["id"]]
    assert listed["transcript_available"] is True
