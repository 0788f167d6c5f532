"""What Prometheus gets, and who may ask."""

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr


def samples(text: str) -> dict[str, list[tuple[dict, float]]]:
    found: dict[str, list[tuple[dict, float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def ask(api, address: str, **headers: str):
    transport = httpx2.ASGITransport(app=api.app, client=(address, 1234))
    return httpx2.AsyncClient(transport=transport, base_url="http://api.test", headers=headers)


async def test_requests_are_counted_by_route_and_status_and_nothing_of_the_request_becomes_a_label(api, client):
    for name in ("first", "second"):
        await client.get(f"/v1/calls/{name}")
        await client.get(f"/nowhere/{name}")
    async with ask(api, "127.0.0.1") as local:
        answer = await local.get("/metrics")
    counted = samples(answer.text)
    routes = {(labels["route"], labels["status"]) for labels, _ in counted["voxpria_requests_total"]}
    assert {("/v1/calls/{call_id}", "404"), ("none", "404")} <= routes
    assert "first" not in answer.text
    assert "_created" not in answer.text
    assert counted["voxpria_database_up"] == [({}, 1.0)]
    assert {labels["pool"] for labels, _ in counted["voxpria_database_connections_in_use"]} == {"work", "reads"}


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
async def test_without_a_token_only_this_machine_may_ask_and_not_through_a_proxy(api, header):
    async with ask(api, "127.0.0.1", **{header: "198.51.100.1"}) as proxied, ask(api, "198.51.100.1") as remote:
        assert (await proxied.get("/metrics")).status_code == 404
        assert (await remote.get("/metrics")).status_code == 404


async def test_with_a_token_whoever_shows_it_may_ask(api):
    api.app.state.settings = api.app.state.settings.model_copy(update={"metrics_token": SecretStr("s3cret")})
    for token, status in (("s3cret", 200), ("other", 404)):
        async with ask(api, "198.51.100.1", Authorization=f"Bearer {token}") as remote:
            assert (await remote.get("/metrics")).status_code == status
    async with ask(api, "127.0.0.1") as local:
        assert (await local.get("/metrics")).status_code == 404
