"""A call that is not recorded is measured by what both ends report of it (RTCP), through the relay to its record."""

from tests.product import Product, until

NUMBER = "+15555550550"
WORDS = "Good morning. This call is measured and not recorded."


def test_the_endpoints_own_reports_make_the_calls_quality(product: Product) -> None:
    body = {
        "name": "Not recorded",
        "provider": "generic",
        "credentials": {"username": "test_user", "password": "test_pass"},
        "config": {"server": "sip.test.voxpria.com", "record": False},
    }
    trunk = product.api("POST", "/sip/trunks", body)
    body = {"phone_number": NUMBER, "trunk_id": trunk["id"], "config": {"first_message": WORDS}}
    number = product.api("POST", "/phone-numbers/import", body)
    until("the number is active", lambda: product.api("GET", f"/phone-numbers/{number['id']}")["status"] == "active")
    result = product.call(NUMBER, seconds=8, say=WORDS)
    assert result["answered"], result
    call_id = product.ended_call(result["call_id"])["id"]
    record = until("it is measured", lambda: (r := product.api("GET", f"/calls/{call_id}"))["quality"] and r)
    assert record["recording_url"] is None
    assert record["quality"]["source"] == "rtcp"
    for side in ("caller", "agent"):
        measured = record["quality"][side]
        assert measured["packets"] > 100
        assert 0 <= measured["jitter_ms"] < 500
        assert 1 < measured["mos"] <= 4.5
    assert record["metadata"]["call_quality"] is not None
