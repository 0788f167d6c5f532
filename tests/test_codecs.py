"""An agent that speaks one codec and a carrier that speaks another hear each other, and both are recorded."""

import io
from typing import Any

import av
import httpx2
import numpy as np
import pytest

from tests.product import Product, until

WORDS = "Good morning. I would like to hear whether anybody understands me."


CREDENTIALS = {
    "elevenlabs": {"username": "user", "password": "secret-word"},
    "openai": {"project_id": "proj_codecs", "api_key": "sk-proj-codecs", "webhook_secret": "whsec_def456"},
}


def number_at(product: Product, provider: str, codec: str, number: str) -> None:
    """A number of a provider whose servers are to be offered this codec alone."""
    config = {"codecs": [codec], "record": True}
    body = {"name": f"Only {codec}", "provider": provider, "credentials": CREDENTIALS[provider], "config": config}
    trunk_id = product.api("POST", "/sip/trunks", body)["id"]
    agent_id = product.api("POST", "/agents", {"name": "Codecs", "engine": provider, "instructions": "Listen."})["id"]
    body = {"phone_number": number, "trunk_id": trunk_id, "agent_id": agent_id, "config": {"first_message": WORDS}}
    phone_id = product.api("POST", "/phone-numbers/import", body)["id"]
    what = f"/sip/trunks/{trunk_id}" if provider == "openai" else f"/phone-numbers/{phone_id}"
    product.api("POST", f"{what}/provision")
    until("it is active", lambda: product.api("GET", f"/phone-numbers/{phone_id}")["status"] == "active", 20)


def loud_seconds(sound: Any, rate: int) -> float:
    """How long a channel is louder than an idle line, in parts of 20 ms."""
    parts = sound[: len(sound) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50).astype(float)
    return float((np.sqrt((parts**2).mean(axis=1)) > 200).sum()) / 50


@pytest.mark.parametrize(
    ("provider", "codec", "number"), [("elevenlabs", "G722", "+15555550722"), ("openai", "opus", "+15555550848")]
)
def test_a_carrier_with_g711_and_an_agent_with_another_codec_hear_each_other(
    product: Product, provider: str, codec: str, number: str
) -> None:
    number_at(product, provider, codec, number)
    result = product.call(number, seconds=8, say=WORDS)
    assert result["answered"], result
    assert result["heard_speech_seconds"] > 1
    agents = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    agent = next(call for call in agents if call["call_id"] == result["call_id"])
    assert agent["heard_speech_seconds"] > 1
    record = product.ended_call(result["call_id"])

    def recorded() -> str | None:
        url: str | None = product.api("GET", f"/calls/{record['id']}")["recording_url"]
        return url

    url = until("the call is recorded", recorded, 30)
    quality = product.api("GET", f"/calls/{record['id']}")["quality"]
    assert (quality["caller"]["codec"], quality["agent"]["codec"]) == ("PCMU", codec)
    with av.open(io.BytesIO(httpx2.get(url, timeout=30).content)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    left, right = 32767 * np.concatenate(frames, axis=1)
    assert loud_seconds(left, rate) > 1
    assert loud_seconds(right, rate) > 1
