"""The first day of a new user: a trunk, a number, a call, its record, its recording, its webhooks."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import av
import httpx2
import numpy as np
import pytest
from baresip_tool import Baresip

from tests.product import Product, until
from tests.sipp import place_call

NUMBER = "+15555551234"
OUTSIDE_CARRIER = "127.0.0.8"
STRANGER = "127.0.0.9"
FIRST_MESSAGE = "Hello from the first call. Tell me, how can I help you today?"


@pytest.fixture(scope="module")
def agent(product: Product) -> dict[str, Any]:
    return product.api("POST", "/agents", {"name": "Reception", "engine": "elevenlabs"}, expect=201)


@pytest.fixture(scope="module")
def trunk(product: Product) -> dict[str, Any]:
    return product.api(
        "POST",
        "/sip/trunks",
        {
            "name": "First trunk",
            "provider": "generic",
            "credentials": {"username": "test_user", "password": "test_pass"},
            "config": {"server": "sip.test.voxpria.com", "allowed_addresses": [OUTSIDE_CARRIER]},
        },
        expect=201,
    )


@pytest.fixture(scope="module")
def number(product: Product, trunk: dict[str, Any], agent: dict[str, Any]) -> dict[str, Any]:
    imported = product.api(
        "POST",
        "/phone-numbers/import",
        {
            "phone_number": NUMBER,
            "trunk_id": trunk["id"],
            "agent_id": agent["id"],
            "config": {"first_message": FIRST_MESSAGE, "max_duration": 60, "language": "en-US"},
        },
        expect=201,
    )
    assert imported["status"] == "provisioning"
    provisioned = product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    assert provisioned["success"] is True
    assert provisioned["status"] == "active"
    return product.api("GET", f"/phone-numbers/{imported['id']}")


def test_the_number_is_active(number: dict[str, Any], trunk: dict[str, Any], agent: dict[str, Any]) -> None:
    assert number["status"] == "active"
    assert number["trunk_name"] == trunk["name"]
    assert number["agent_name"] == agent["name"]


def test_an_elevenlabs_trunk_and_its_number(product: Product) -> None:
    trunk = product.api(
        "POST",
        "/sip/trunks",
        {"name": "Eleven", "provider": "elevenlabs", "credentials": {"username": "user", "password": "secret-word"}},
        expect=201,
    )
    imported = product.api(
        "POST",
        "/phone-numbers/import",
        {"phone_number": "+15555557001", "trunk_id": trunk["id"], "agent_id": "agent_at_elevenlabs"},
        expect=201,
    )
    assert imported["engine"] == "elevenlabs"
    assert product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)["status"] == "active"
    result = product.call("+15555557001", seconds=2)
    assert result["answered"], result


def test_wrong_sandbox_credentials_are_refused(product: Product) -> None:
    body = {
        "name": "Wrong",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "wrong"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    error = product.api("POST", "/sip/trunks", body, expect=400)["error"]
    assert error["code"] == "invalid_credentials"
    assert error["request_id"].startswith("req_")


@pytest.fixture(scope="module")
def call(product: Product, number: dict[str, Any]) -> dict[str, Any]:
    """A call of four seconds in which the caller says nothing, and the agent its first message."""
    result = product.call(NUMBER, seconds=4, say="")
    assert result["answered"], result
    assert result["heard_speech_seconds"] > 1, result
    record = product.ended_call(result["call_id"])
    return until("quality is measured", lambda: _measured(product, record["id"]))


def _measured(product: Product, call_id: str) -> dict[str, Any] | None:
    record = product.api("GET", f"/calls/{call_id}")
    return record if record["metadata"]["call_quality"] else None


def test_the_record_is_true(call: dict[str, Any], agent: dict[str, Any]) -> None:
    assert call["status"] == "completed"
    assert call["sip_code"] == 200
    assert call["direction"] == "inbound"
    assert call["to"] == call["phone_number"] == NUMBER
    assert 3 <= call["duration"] <= 5
    assert call["agent_id"] == agent["id"]
    assert call["agent_name"] == "Reception"
    assert call["ended_by"] == "caller"
    assert call["metadata"]["call_quality"] == "excellent"
    assert call["quality"]["agent"]["mos"] > 4
    assert call["quality"]["source"] == "packets"


def test_the_list_shows_the_same_call(product: Product, call: dict[str, Any]) -> None:
    listed = next(c for c in product.calls_to(NUMBER) if c["id"] == call["id"])
    assert listed["duration"] == call["duration"]
    assert listed["status"] == "completed"


def test_the_recording_is_stereo_with_the_agent_on_the_right(call: dict[str, Any]) -> None:
    answer = httpx2.get(call["recording_url"], timeout=30)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/mpeg"
    assert abs(_length_seconds(answer.content) - 4) < 0.5
    left, right = _channels(answer.content)
    assert max(right) > 20 * max([1e-6, *left]), (left, right)


def _length_seconds(mp3: bytes) -> float:
    with av.open(io.BytesIO(mp3)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def _channels(mp3: bytes) -> tuple[list[float], list[float]]:
    """Loudness (RMS) of each second, of the left and the right channel."""
    with av.open(io.BytesIO(mp3)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.channels == 2
        rate = stream.rate
        audio = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1).astype(float)
    seconds = [audio[:, i : i + rate] for i in range(0, audio.shape[1], rate)]
    loudness = [np.sqrt((second**2).mean(axis=1)) for second in seconds]
    return [float(v[0]) for v in loudness], [float(v[1]) for v in loudness]


def test_every_message_of_the_call_is_there_without_secrets(product: Product, call: dict[str, Any]) -> None:
    trace = until("the trace is whole", lambda: _whole_trace(product, call["id"]))
    assert trace["messages"][0]["summary"].startswith(f"INVITE sip:{NUMBER}@")
    assert {message["leg"] for message in trace["messages"]} == {"carrier", "agent"}
    assert any(message["summary"].startswith("SIP/2.0 401") for message in trace["messages"])
    assert "response=" not in json.dumps(trace)
    assert FIRST_MESSAGE.split(maxsplit=1)[0] not in json.dumps(trace)
    timings = trace["timings"]
    assert 0 < timings["edge_ms"] <= timings["post_dial_delay_ms"]
    assert timings["agent_ringing_ms"] <= timings["agent_answer_ms"]
    assert product.api("GET", f"/calls/{call['id']}")["timings"] == timings


def _whole_trace(product: Product, call_id: str) -> dict[str, Any] | None:
    trace = product.api("GET", f"/calls/{call_id}/trace")
    byes = [m["leg"] for m in trace["messages"] if m["summary"].startswith("BYE ")]
    return trace if trace["timings"] and set(byes) == {"carrier", "agent"} else None


def test_the_caller_is_on_the_left(product: Product, number: dict[str, Any]) -> None:
    result = product.call(NUMBER, seconds=5, say="I am the caller, and I would like to hear my own voice on the left.")
    record = product.ended_call(result["call_id"])
    left, _ = _channels(httpx2.get(record["recording_url"], timeout=30).content)
    assert max(left) > 0.01


def test_the_agent_can_hang_up(product: Product, number: dict[str, Any]) -> None:
    result = product.call(NUMBER, seconds=2, hangup_by="agent")
    record = product.ended_call(result["call_id"])
    assert (record["status"], record["ended_by"], record["end_cause"]) == ("completed", "agent", "hangup")


def test_max_duration_ends_both_legs(product: Product, number: dict[str, Any]) -> None:
    product.set_max_duration(number, 3)
    try:
        result = product.call(NUMBER, seconds=30)
    finally:
        product.set_max_duration(number, 60)
    assert result["ended_by"] == "edge", result
    record = product.ended_call(result["call_id"])
    assert record["end_cause"] == "max_duration"
    assert record["ended_by"] == "edge"
    assert 2 <= record["duration"] <= 5


def test_an_outside_carrier_at_an_allowed_address(product: Product, number: dict[str, Any], tmp_path: Path) -> None:
    before = len(product.calls_to(NUMBER))
    seen = place_call(tmp_path, product.sip_port, OUTSIDE_CARRIER, NUMBER, talk_ms=2000)
    assert seen.final_code == 200
    until("the call is in the log", lambda: len(product.calls_to(NUMBER)) == before + 1)
    record = product.ended_call(product.calls_to(NUMBER)[0]["id"])
    assert record["status"] == "completed"
    assert 1 <= record["duration"] <= 3


@pytest.mark.parametrize("by", ["caller", "edge"])
def test_baresip_as_an_outside_carrier(product: Product, number: dict[str, Any], tmp_path: Path, by: str) -> None:
    product.set_max_duration(number, 60 if by == "caller" else 3)
    before = len(product.calls_to(NUMBER))
    with Baresip.started(tmp_path, OUTSIDE_CARRIER, "+13038921234") as carrier:
        carrier.dial(f"sip:{NUMBER}@127.0.0.1:{product.sip_port}")
        carrier.wait_for("CALL_ESTABLISHED")
        carrier.wait_for("CALL_RTPESTAB")
        if by == "caller":
            carrier.hang_up()
        carrier.wait_for("CALL_CLOSED")
    product.set_max_duration(number, 60)
    until("the call is in the log", lambda: len(product.calls_to(NUMBER)) == before + 1)
    record = product.ended_call(product.calls_to(NUMBER)[0]["id"])
    assert (record["status"], record["ended_by"], record["from"]) == ("completed", by, "+13038921234")


def test_a_stranger_is_refused_and_the_record_says_why(
    product: Product, number: dict[str, Any], trunk: dict[str, Any], tmp_path: Path
) -> None:
    seen = place_call(tmp_path, product.sip_port, STRANGER, NUMBER)
    assert seen.final_code == 401  # it may know the trunk's password; what it dials makes no difference
    record = until("the refusal is in the log", lambda: _newest_failed(product, NUMBER))
    assert record["sip_code"] == 401
    assert STRANGER in record["explanation"]["summary"]
    assert record["explanation"]["nearest"] == f"the source {STRANGER} lies just outside {OUTSIDE_CARRIER}/32"
    assert trunk["id"] in record["explanation"]["mend"]


def test_an_unknown_number_is_refused_and_the_record_says_why(
    product: Product, number: dict[str, Any], tmp_path: Path
) -> None:
    seen = place_call(tmp_path, product.sip_port, OUTSIDE_CARRIER, "+15555551239")
    assert seen.final_code == 404
    record = until("the refusal is in the log", lambda: _newest_failed(product, "+15555551239"))
    assert record["sip_code"] == 404
    assert NUMBER in record["explanation"]["nearest"]


def _newest_failed(product: Product, number: str) -> dict[str, Any] | None:
    calls = [c for c in product.calls_to(number) if c["status"] == "failed"]
    return product.api("GET", f"/calls/{calls[0]['id']}") if calls else None


SNIPPET = """
const crypto = require('crypto');
function verifyWebhook(payload, signature, secret) {
  const hmac = crypto.createHmac('sha256', secret);
  const digest = hmac.update(JSON.stringify(payload)).digest('hex');
  return crypto.timingSafeEqual(Buffer.from(signature), Buffer.from(digest));
}
const [body, signature, secret] = JSON.parse(require('fs').readFileSync(0, 'utf8'));
process.stdout.write(String(verifyWebhook(JSON.parse(body), signature, secret)));
"""
"""The reference's check, as its users run it."""


def test_webhooks_arrive_and_the_references_snippet_verifies_them(product: Product, number: dict[str, Any]) -> None:
    hook = f"{product.sandbox_url}/hooks/first"
    webhook = product.api(
        "POST",
        "/webhooks",
        {"url": hook, "events": ["call.started", "call.ended"], "secret": "a secret of the user's own"},
        expect=201,
    )
    result = product.call(NUMBER, seconds=1)
    received = until("both webhooks", lambda: _received(hook, result["call_id"], 2))
    product.api("DELETE", f"/webhooks/{webhook['id']}")
    assert {json.loads(r["body"])["event"] for r in received} == {"call.started", "call.ended"}
    node = shutil.which("node")
    assert node
    for request in received:
        headers = {name.lower(): value for name, value in request["headers"].items()}
        stdin = json.dumps([request["body"], headers["x-voxpria-signature"], "a secret of the user's own"])
        command = [node, "-e", SNIPPET]
        run = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True, timeout=20)
        assert run.stdout == "true", run.stderr


def _received(hook: str, call_id: str, count: int) -> list[dict[str, Any]] | None:
    requests = httpx2.get(hook, timeout=5).json()["requests"]
    ours = [r for r in requests if json.loads(r["body"])["data"]["call_id"] == call_id]
    return ours if len(ours) >= count else None
