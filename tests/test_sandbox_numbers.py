"""The sandbox's documented numbers, with their real times."""

import time

from tests.product import Product, until

FAILING, SLOW = "+15555551235", "+15555551236"


def test_each_does_what_the_reference_says(product: Product) -> None:
    credentials = {"username": "u", "password": "p"}
    body = {"name": "Documented numbers", "provider": "elevenlabs", "credentials": credentials}
    trunk_id = product.api("POST", "/sip/trunks", body)["id"]
    hook = {"url": f"{product.sandbox_url}/hooks/provisioned", "events": ["number.provisioned"], "secret": "s" * 24}
    product.api("POST", "/webhooks", hook)
    numbers = {
        number: product.api("POST", "/phone-numbers/import", {"phone_number": number, "trunk_id": trunk_id})["id"]
        for number in (FAILING, SLOW)
    }
    error = product.api("POST", f"/phone-numbers/{numbers[FAILING]}/provision", expect=500)["error"]
    assert error["code"] == "provisioning_failed"
    assert "always refused" in error["details"]["reason"]
    assert product.api("GET", f"/phone-numbers/{numbers[FAILING]}")["status"] == "inactive"
    started_at = time.monotonic()
    answer = product.api("POST", f"/phone-numbers/{numbers[SLOW]}/provision", expect=202)
    assert answer["status"] == "provisioning"
    assert 9.5 < time.monotonic() - started_at < 30
    path = f"/phone-numbers/{numbers[SLOW]}"
    until("the slow number is active", lambda: product.api("GET", path)["status"] == "active", 40)
    assert time.monotonic() - started_at > 14.5

    def told() -> list[str]:
        requests = product.sandbox_hook("provisioned")
        return [request["body"] for request in requests if SLOW in request["body"]]

    assert len(until("the webhook is told", told, 20)) == 1
