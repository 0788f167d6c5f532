"""A call of the whole product, ended by the API."""

import threading
from typing import Any

import httpx2

from tests.product import TEST_KEY, Product, until

NUMBER = "+15555557101"
RINGS_ON = "+15555552408"


def number_on_a_trunk(product: Product, e164: str) -> dict[str, Any]:
    body = {
        "name": f"Trunk of {e164}",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com"},
    }
    trunk = product.api("POST", "/sip/trunks", body, expect=201)
    number = product.api("POST", "/phone-numbers/import", {"phone_number": e164, "trunk_id": trunk["id"]}, expect=201)
    product.api("POST", f"/phone-numbers/{number['id']}/provision", expect=200)
    return number


def hung_up(product: Product, number: str, wanted: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call a number, hang up by the API once the call is as wanted; return the record and the carrier's result."""
    results: list[dict[str, Any]] = []
    carrier = threading.Thread(target=lambda: results.append(product.call(number, seconds=40)))
    carrier.start()

    def is_as_wanted() -> dict[str, Any] | None:
        calls = [call for call in product.calls_to(number) if call["status"] == "in-progress"]
        kinds = [event["type"] for event in product.api("GET", f"/calls/{calls[0]['id']}")["events"]] if calls else []
        return calls[0] if wanted in kinds else None

    call = until(f"the call is {wanted}", is_as_wanted)
    answer = httpx2.post(
        f"{product.url}/v1/calls/{call['id']}/hangup", headers={"Authorization": f"Bearer {TEST_KEY}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["success"] is True
    carrier.join(30)
    return product.ended_call(call["id"]), results[0]


def test_a_call_is_hung_up_by_the_api(product: Product) -> None:
    number_on_a_trunk(product, NUMBER)
    record, result = hung_up(product, NUMBER, "answered")
    assert result["ended_by"] == "edge", result
    assert (record["status"], record["ended_by"], record["end_cause"]) == ("completed", "api", "hangup")
    again = product.api("POST", f"/calls/{record['id']}/hangup", expect=200)
    assert again["ended_at"] == record["ended_at"]


def test_a_ringing_call_is_hung_up_by_the_api(product: Product) -> None:
    number_on_a_trunk(product, RINGS_ON)
    record, result = hung_up(product, RINGS_ON, "ringing")
    assert (result["answered"], result["sip_code"]) == (False, 603)
    assert (record["status"], record["ended_by"], record["end_cause"]) == ("canceled", "api", "canceled")
