"""What POST /v1/sip/route-test says of a call that nobody places is what a real call of the kind gets."""

from pathlib import Path
from typing import Any

import pytest
from sipp_tool import sipp

from tests.product import Product, until

CARRIER, STRANGER = "127.0.0.24", "127.0.0.25"
ACTIVE, INACTIVE = "+15555558101", "+15555558102"
UNKNOWN, NO_NUMBER = "+15555558104", "reception"
USERNAME, PASSWORD = "test_user", "test_pass"


@pytest.fixture(scope="module")
def numbers(product: Product) -> None:
    """Two numbers that one carrier calls: one in service, and one of ElevenLabs' that is not provisioned."""
    config = {"allowed_addresses": [CARRIER]}
    credentials = {"username": USERNAME, "password": PASSWORD}
    generic = {"name": "Foretold", "provider": "generic", "config": {"server": "sip.test.voxpria.com", **config}}
    elevenlabs = {"name": "Not yet", "provider": "elevenlabs", "config": config}
    ids: dict[str, str] = {}
    for number, trunk in ((ACTIVE, generic), (INACTIVE, elevenlabs)):
        trunk_id = product.api("POST", "/sip/trunks", trunk | {"credentials": credentials}, expect=201)["id"]
        body = {"phone_number": number, "trunk_id": trunk_id}
        ids[number] = product.api("POST", "/phone-numbers/import", body, expect=201)["id"]
    path = f"/phone-numbers/{ids[ACTIVE]}"
    until("the edge has the routes", lambda: product.api("GET", path)["status"] == "active")


def refused(product: Product, folder: Path, source: str, to: str, password: str | None) -> int:
    """Place a real call with SIPp, and return the code that it is refused with."""
    edge = ("127.0.0.1", product.sip_port)
    scenario = "carrier_uses_digest" if password else "carrier_is_refused"
    extra = ("-au", USERNAME, "-ap", password) if password else ()
    with sipp(scenario, folder, address=source, to=edge, number=to, extra=extra) as carrier:
        carrier.process.wait(60)
    return carrier.final_code("2 INVITE" if password else "1 INVITE")


@pytest.mark.usefixtures("numbers")
@pytest.mark.parametrize(
    ("source", "to", "password", "code"),
    [
        (CARRIER, UNKNOWN, None, 404),
        (CARRIER, NO_NUMBER, None, 404),
        (CARRIER, INACTIVE, None, 480),
        (STRANGER, ACTIVE, None, 401),
        (STRANGER, ACTIVE, "wrong", 403),
    ],
)
def test_a_refusal_is_foretold_word_for_word(
    product: Product, tmp_path: Path, source: str, to: str, password: str | None, code: int
) -> None:
    question: dict[str, Any] = {"to": to, "from": "+13038921234", "source_address": source}
    if password:
        question["credentials"] = {"username": USERNAME, "password": password}
    foretold = product.api("POST", "/sip/route-test", question, expect=200)
    assert (foretold["verdict"], foretold["sip_code"]) == ("reject", code)
    assert refused(product, tmp_path, source, to, password) == code

    def recorded() -> dict[str, Any] | None:
        calls = [call for call in product.api("GET", "/calls?per_page=100")["data"] if call["to"] == to]
        found = [product.api("GET", f"/calls/{call['id']}") for call in calls]
        return next((call for call in found if call["sip_code"] == code), None)

    record = until("the refusal is in the log", recorded)
    assert record["explanation"] == foretold["explanation"]
    assert record["explanation"]["mend"]
