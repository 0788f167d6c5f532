"""POST /v1/sip/route-test: the edge's decision, over one's own routes only."""

import pytest

CARRIER = {
    "name": "Carrier",
    "provider": "generic",
    "credentials": {"username": "carrier", "password": "its secret"},
    "config": {"server": "127.0.0.1", "port": 9, "allowed_addresses": ["203.0.113.0/29"], "country": "DE"},
}
NUMBER = "+4930123456789"


async def _ask(client, **body):
    answer = await client.post("/v1/sip/route-test", json={"to": NUMBER, "source_address": "203.0.113.1", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
async def number(client) -> str:
    trunk_id = (await client.post("/v1/sip/trunks", json=CARRIER)).json()["id"]
    body = {"phone_number": NUMBER, "trunk_id": trunk_id}
    return (await client.post("/v1/phone-numbers/import", json=body)).json()["id"]


async def _in_service(api, number_id: str) -> None:
    async with api.database.transaction() as conn:
        await conn.exec_driver_sql(
            f"UPDATE phone_numbers SET is_routed = true, status = 'active' WHERE id = '{number_id}'"
        )


async def test_a_number_that_is_not_in_service_says_why(client, number):
    verdict = await _ask(client)
    assert (verdict["verdict"], verdict["sip_code"], verdict["cause"]) == ("reject", 480, "number_inactive")
    assert verdict["phone_number_id"] == number
    assert "provision" in verdict["explanation"]["mend"]


async def test_a_call_that_would_be_dialled_names_its_targets(client, api, number):
    await _in_service(api, number)
    verdict = await _ask(client, **{"from": "+13035559876"})
    assert (verdict["verdict"], verdict["sip_code"], verdict["from"]) == ("dial", None, "+13035559876")
    assert [target["request_uri"] for target in verdict["targets"]] == [f"sip:{NUMBER}@127.0.0.1:9"]


async def test_a_national_number_is_read_by_the_trunks_country_and_that_is_said(client, api, number):
    await _in_service(api, number)
    verdict = await _ask(client, to="030123456789")
    assert (verdict["verdict"], verdict["to"]) == ("dial", NUMBER)
    assert f"dialled 030123456789: {NUMBER} (a number of DE, the trunk's country)" in verdict["explanation"]["tried"]


async def test_strangers_and_what_they_could_show(client, api, number):
    await _in_service(api, number)
    stranger = {"source_address": "203.0.113.9"}
    verdict = await _ask(client, **stranger)
    assert verdict["sip_code"] == 401
    assert verdict["explanation"]["nearest"] == "the source 203.0.113.9 lies just outside 203.0.113.0/29"
    verdict = await _ask(client, **stranger, credentials={"username": "carrier", "password": "wrong"})
    assert (verdict["sip_code"], verdict["cause"]) == (403, "credentials_refused")
    verdict = await _ask(client, **stranger, credentials={"username": "carrier", "password": "its secret"})
    assert verdict["verdict"] == "dial"


async def test_a_near_number_is_named(client, number):
    verdict = await _ask(client, to=NUMBER[:-1] + "0")
    assert verdict["sip_code"] == 404
    assert NUMBER in verdict["explanation"]["nearest"]


async def test_nothing_of_another_accounts_shows(client, api, number):
    await _in_service(api, number)
    for intruder in (
        await api.client(await api.new_key()),
        await api.client(await api.new_key(mode="live", account_id="acct_sandbox")),
    ):
        verdict = await _ask(intruder, credentials={"username": "carrier", "password": "its secret"})
        assert (verdict["verdict"], verdict["phone_number_id"], verdict["trunk_id"]) == ("reject", None, None)
        assert "Carrier" not in str(verdict)


@pytest.mark.parametrize("change", [{"source_address": "nowhere"}, {"to": ""}, {"more": 1}])
async def test_bad_input_is_400(client, change):
    answer = await client.post("/v1/sip/route-test", json={"to": NUMBER, "source_address": "203.0.113.1"} | change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_parameter")
