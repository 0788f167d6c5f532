"""The sandbox's magic numbers, called through the whole product: carrier and record both tell the real thing."""

import concurrent.futures
from typing import Any

import pytest

from tests.product import Product

DECLINED, OVERLOADED, UNKNOWN = "+15555552603", "+15555552503", "+15555552404"
SLOW, DROPS, MENU, ECHO, TRANSFERS = "+15555552010", "+15555552110", "+15555552012", "+15555552002", "+15555552302"
OPTIONS: dict[str, dict[str, object]] = {
    DECLINED: {},
    OVERLOADED: {},
    UNKNOWN: {},
    SLOW: {"seconds": 2},
    DROPS: {"seconds": 40},
    MENU: {"seconds": 40, "say": "", "digits": "12", "digits_after_seconds": 5},
    ECHO: {"seconds": 6, "say": "Is there anybody out there? I can hear myself, and I go on for a while."},
    TRANSFERS: {"seconds": 40, "say": ""},
}
"""How each is called; `tests/test_evidence.py` and `tests/test_hang_up.py` call the others."""


@pytest.fixture(scope="module")
def called(product: Product) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What the carrier saw of a call to each number, and the call's record."""
    trunk = {
        "name": "Magic",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    trunk_id = product.api("POST", "/sip/trunks", trunk, expect=201)["id"]
    for number in OPTIONS:
        body = {"phone_number": number, "trunk_id": trunk_id}
        imported = product.api("POST", "/phone-numbers/import", body, expect=201)
        product.api("POST", f"/phone-numbers/{imported['id']}/provision", expect=200)
    with concurrent.futures.ThreadPoolExecutor(len(OPTIONS)) as pool:
        placed = {number: pool.submit(product.call, number, **options) for number, options in OPTIONS.items()}
        results = {number: each.result(120) for number, each in placed.items()}
    return {number: (result, product.ended_call(result["call_id"])) for number, result in results.items()}


Called = dict[str, tuple[dict[str, Any], dict[str, Any]]]


@pytest.mark.parametrize(("number", "code"), [(DECLINED, 603), (OVERLOADED, 503), (UNKNOWN, 404)])
def test_refusals_are_the_agents_own_and_say_how_to_mend_them(called: Called, number: str, code: int) -> None:
    result, record = called[number]
    assert (result["answered"], result["sip_code"]) == (False, code)
    assert (record["sip_code"], record["end_cause"], record["ended_by"]) == (code, "rejected", "agent")
    assert f"{code} " in record["explanation"]["summary"]
    assert record["explanation"]["mend"]


def test_a_slow_answer(called: Called) -> None:
    result, record = called[SLOW]
    assert result["timings_ms"]["answered"] - result["timings_ms"]["ringing"] > 9500
    assert (record["status"], record["ended_by"]) == ("completed", "caller")


def test_the_agent_drops_the_call(called: Called) -> None:
    result, record = called[DROPS]
    assert result["ended_by"] == "agent"
    assert (record["status"], record["ended_by"], record["end_cause"]) == ("completed", "agent", "hangup")
    assert 9 <= record["duration"] <= 14


def test_the_menu_hears_the_keys(called: Called) -> None:
    result, record = called[MENU]
    assert result["ended_by"] == record["ended_by"] == "agent"
    assert result["duration_seconds"] < 40


def test_the_echo_is_heard(called: Called) -> None:
    result, record = called[ECHO]
    assert result["heard_speech_seconds"] > 1
    assert record["status"] == "completed"


def test_the_transfer_is_asked_for(called: Called) -> None:
    result, record = called[TRANSFERS]
    assert "+15555551234" in result["referred_to"]
    assert result["ended_by"] == record["ended_by"] == "caller"
