"""A trunk's announcement, from the PATCH that sets it to the recording that begins with it."""

import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import numpy.typing as npt
import pytest
from media_tools import decode
from rtp_peer import PCMU, rtp_peer
from sipp_tool import body, sipp
from test_announcements import SPOKEN_CORRELATION, at_8000, heard_by, likeness, wav

from tests.product import Product, until

NUMBER = "+15555557401"
OUT = "+15555557402"
CARRIER = "127.0.0.18"
TEXT = "This call is recorded."
LANGUAGE = "en-GB"


@pytest.fixture(scope="module")
def trunk(product: Product) -> dict[str, Any]:
    return product.api(
        "POST",
        "/sip/trunks",
        {
            "name": "Announced",
            "provider": "generic",
            "credentials": {"username": "test_user", "password": "test_pass"},
            "config": {"server": "sip.test.voxpria.com", "allowed_addresses": [CARRIER]},
        },
        expect=201,
    )


@pytest.fixture(scope="module")
def number(product: Product, trunk: dict[str, Any]) -> str:
    agent = product.api("POST", "/agents", {"name": "Announced", "engine": "elevenlabs"}, expect=201)
    imported = product.api(
        "POST",
        "/phone-numbers/import",
        {
            "phone_number": NUMBER,
            "trunk_id": trunk["id"],
            "agent_id": agent["id"],
            "config": {"first_message": "Hello, this is the agent, and I go on for a while so that I am heard."},
        },
        expect=201,
    )
    product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    return NUMBER


@pytest.fixture(scope="module")
def sound(product: Product, trunk: dict[str, Any], number: str) -> npt.NDArray[np.float64]:
    """The announcement, once the trunk has it and the edge has made it."""
    announcement = {"text": TEXT, "language": LANGUAGE}
    changed = product.api(
        "PATCH", f"/sip/trunks/{trunk['id']}", {"config": {"record": True, "recording_announcement": announcement}}
    )
    assert changed["config"]["recording_announcement"] == announcement
    folder = product.data / "edge" / "announcements"
    [made] = until("the edge has made it", lambda: [*folder.glob("*.wav")])
    return wav(made)


def called_agent(product: Product, call_id: str) -> dict[str, Any] | None:
    calls = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    return next((call for call in calls if call["call_id"] == call_id), None)


def test_a_caller_is_told_first_and_its_recording_begins_with_that(
    product: Product, number: str, sound: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    hook = product.api(
        "POST", "/webhooks", {"url": f"{product.sandbox_url}/hooks/announced", "events": ["call.ended"]}, expect=201
    )
    to = ("127.0.0.1", product.sip_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        sipp(
            "carrier_offers_and_waits_for_bye", tmp_path, address=CARRIER, to=to, number=number, keys=caller.keys
        ) as calling,
    ):
        answer = until("the caller is answered", lambda: _description(calling.received))
        caller.talk(answer)
        until("the caller is told", lambda: likeness(heard_by(caller), sound) > SPOKEN_CORRELATION)
        call_id = until("the call is in the log", lambda: product.calls_to(number))[0]["id"]
        until("the agent is called", lambda: called_agent(product, call_id))
        until("the caller hears the agent", lambda: len(heard_by(caller)) > len(sound) + 2 * 8000)
        product.api("POST", f"/calls/{call_id}/hangup", expect=200)
        calling.wait()
    record = product.ended_call(call_id)
    assert (record["status"], record["ended_by"], record["direction"]) == ("completed", "api", "inbound")
    link = until("the recording", lambda: product.api("GET", f"/calls/{call_id}")["recording_url"])
    left, right = recording(link, tmp_path / "recording.mp3")
    beginning = len(sound) + 8000
    assert likeness(right[:beginning], sound) > SPOKEN_CORRELATION
    assert likeness(left[:beginning], sound) < SPOKEN_CORRELATION
    assert right[beginning:].any()
    told = until("the webhook", lambda: _told(product, call_id))
    assert told["data"]["status"] == "completed"
    assert httpx2.get(told["data"]["recording_url"], timeout=30).status_code == 200
    product.api("DELETE", f"/webhooks/{hook['id']}")


def test_a_call_that_the_api_places_is_announced_to_its_callee_and_recorded(
    product: Product, trunk: dict[str, Any], sound: npt.NDArray[np.float64], tmp_path: Path
) -> None:
    held = product.number_with_a_carrier(OUT, username="ann", password="ann-word")
    announcement = {"text": TEXT, "language": LANGUAGE}
    product.api("PATCH", f"/sip/trunks/{held['trunk_id']}", {"config": {"recording_announcement": announcement}})
    until("the edge has the route", product.routes_are_applied)
    call = product.api("POST", "/calls", {"from": OUT, "to": "+13035550178"}, expect=201)
    until("the agent and the callee are called", lambda: _sides(product, call["id"]) == 2)
    until("both speak", lambda: _packets(product, call["id"]) > 50)
    product.api("POST", f"/calls/{call['id']}/hangup", expect=200)
    assert product.ended_call(call["id"])["status"] == "completed"
    link = until("the recording", lambda: product.api("GET", f"/calls/{call['id']}")["recording_url"])
    _, right = recording(link, tmp_path / "recording.mp3")
    assert likeness(right[: len(sound) + 8000], sound) > SPOKEN_CORRELATION


def _sides(product: Product, call_id: str) -> int:
    calls = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    return len([call for call in calls if call["call_id"] == call_id])


def _packets(product: Product, call_id: str) -> int:
    calls = httpx2.get(f"{product.sandbox_url}/agent/calls", timeout=10).json()["calls"]
    return min(call["packets_received"] for call in calls if call["call_id"] == call_id)


def _description(received: list[str]) -> str:
    return next((body(message) for message in received if message.startswith("SIP/2.0 200")), "")


def recording(link: str, path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Download a recording; return its left and right side at 8 kHz."""
    answer = httpx2.get(link, timeout=30)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    path.write_bytes(answer.content)
    (left, right), rate = decode(path)
    return at_8000(left, rate), at_8000(right, rate)


def _told(product: Product, call_id: str) -> dict[str, Any] | None:
    bodies = [json.loads(request["body"]) for request in product.sandbox_hook("announced")]
    return next((body for body in bodies if body["data"]["call_id"] == call_id), None)
