"""What a call leaves behind: what was wrong is named, and nothing of its media stays on the edge."""

import concurrent.futures
import json
import re
from typing import Any

import httpx2
import pytest

from tests.product import Product, until

_CALL_ID = re.compile(r"call_[0-9a-hjkmnp-tv-z]{26}")
ONE_WAY, LATE, BUSY = "+15555552001", "+15555552005", "+15555552486"


@pytest.fixture(scope="module")
def numbers(product: Product) -> list[str]:
    """The magic numbers of this file, in service."""
    body: dict[str, Any] = {
        "name": "Evidence",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    trunk = product.api("POST", "/sip/trunks", body, expect=201)
    agent = product.api("POST", "/agents", {"name": "Evidence", "engine": "elevenlabs"}, expect=201)
    for number in (ONE_WAY, LATE, BUSY):
        body = {"phone_number": number, "trunk_id": trunk["id"], "agent_id": agent["id"]}
        imported = product.api("POST", "/phone-numbers/import", body, expect=201)
        product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    return [ONE_WAY, LATE, BUSY]


def finished(product: Product, call_id: str) -> dict[str, Any]:
    """The call's record, once its audio has been measured and its messages have been handed over."""

    def look() -> dict[str, Any] | None:
        call = product.api("GET", f"/calls/{call_id}")
        kinds = {event["type"] for event in call["events"]}
        return call if {"measured", "timed"} <= kinds else None

    return until(f"{call_id} is measured and timed", look)


def test_what_was_wrong_is_named(product: Product, numbers: list[str]) -> None:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        placed = [pool.submit(product.call, number, seconds=8) for number in (ONE_WAY, LATE)]
        one_way, late = (finished(product, each.result(60)["call_id"]) for each in placed)
    assert one_way["issues"] == ["one_way_audio"]
    assert one_way["quality"]["agent"] is None
    assert one_way["timings"]["agent_first_audio_ms"] is None
    assert late["issues"] == ["agent_audio_late"]
    assert late["timings"]["agent_first_audio_ms"] > 3000
    assert late["timings"]["caller_first_audio_ms"] < 3000
    until("nothing of the captures is left", lambda: not captured(product))


def test_a_recording_survives_the_death_of_all_that_make_it(product: Product, numbers: list[str]) -> None:
    result = product.call(ONE_WAY, seconds=4)
    for part in ("agent", "api", "postgres"):
        product.main_pid(part).kill()
    until("everything is up again", product.is_ready, 90)
    call = product.ended_call(result["call_id"])
    assert call["status"] == "completed"

    def recording() -> bytes | None:
        url = product.api("GET", f"/calls/{call['id']}")["recording_url"]
        answer = httpx2.get(url, timeout=30) if url else None
        return answer.content if answer is not None and answer.status_code == 200 else None

    assert len(until("the recording is there", recording, 60)) > 5000
    until("nothing of the captures is left", lambda: not captured(product))


def captured(product: Product) -> list[str]:
    """Raw media and keys on the edge's disk."""
    return [path.name for path in (product.data / "edge" / "captures").rglob("*") if path.is_file()]


def test_a_refusal_by_the_agents_side_is_shown_message_by_message(product: Product, numbers: list[str]) -> None:
    result = product.call(BUSY, seconds=2)
    assert (result["answered"], result["sip_code"]) == (False, 486)
    (call,) = until("the call is in the log", lambda: product.calls_to(BUSY))
    assert product.ended_call(call["id"])["status"] == "busy"

    def refused() -> list[str]:
        messages = product.api("GET", f"/calls/{call['id']}/trace")["messages"]
        return [m["leg"] for m in messages if m["summary"].startswith("SIP/2.0 486")]

    assert until("the refusal is traced", refused)[:2] == ["agent", "carrier"]


def test_every_line_in_the_logs_that_is_about_a_call_or_a_request_says_which(
    product: Product, numbers: list[str]
) -> None:
    call = product.ended_call(product.call(ONE_WAY, seconds=2)["call_id"])
    with httpx2.Client(timeout=30) as http:
        assert http.get(f"{product.url}/v1/calls/{call['id']}").status_code == 401
    lines: dict[str, list[dict[str, Any]]] = {
        part: [
            json.loads(line)
            for line in (product.data / "log" / f"{part}.log").read_text().splitlines()
            if line.startswith("{")  # what Python itself says of a process that was killed is no line of ours
        ]
        for part in ("api", "edge-agent")
    }
    about = [line for part in lines for line in lines[part] if _CALL_ID.search(json.dumps(line))]
    assert "request" in {line["event"] for line in about}
    for line in about:
        assert {line.get("call_id")} == set(_CALL_ID.findall(json.dumps(line))), line
    assert [line for line in about if line["event"] == "request" and line["status"] == 401]
    requests = [line for line in lines["api"] if line["event"] in {"request", "request failed", "request raised"}]
    assert all(line["request_id"].startswith("req_") for line in requests)
    refused = [line for line in lines["edge-agent"] if "refused a call" in line["event"]]
    assert all(line["call_id"] for line in refused)
