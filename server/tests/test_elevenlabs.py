"""Numbers at ElevenLabs, as the sandbox plays it: what is imported, repeated, left alone, and told."""

import asyncio
from dataclasses import dataclass, replace

import httpx2
import pytest
from aiohttp import web
from voxpria_sandbox.elevenlabs import NumberImport, NumberStore, NumberUpdate
from voxpria_sandbox.http import elevenlabs
from voxpria_server.providers.base import NumberOrder, RefusedError, UnreachableError
from voxpria_server.providers.elevenlabs import ElevenLabs
from voxpria_server.providers.hosts import edge_address
from voxpria_server.settings import Settings

ADDRESS = "127.0.0.2"
NUMBER = "+15555557301"
ORDER = NumberOrder(
    e164=NUMBER,
    mode="test",
    server="sip.rtc.elevenlabs.io",
    transport="tls",
    media_encryption="required",
    codecs=("G722", "PCMU"),
    agent_id="agent_1",
    provider_number_id=None,
    credentials={"username": "u", "password": "p"},
    edge="sip.example.com",
)


@dataclass
class There:
    """ElevenLabs' side: what it keeps, what it was asked, and whether its next answer gets lost."""

    store: NumberStore
    asked: list[str]
    loses_answer: bool = False
    at_once: int = 0
    most_at_once: int = 0


@pytest.fixture
async def there(tmp_path):
    there = There(NumberStore(tmp_path / "elevenlabs.json"), [])

    @web.middleware
    async def losing(request, handler):
        there.asked.append(request.method)
        there.at_once += 1
        there.most_at_once = max(there.most_at_once, there.at_once)
        answer = await handler(request)
        await asyncio.sleep(0.01)
        there.at_once -= 1
        is_lost, there.loses_answer = there.loses_answer, False
        return web.Response(status=503) if is_lost else answer

    app = web.Application(middlewares=[losing])
    app.add_routes(elevenlabs.routes(there.store, 0))
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, ADDRESS, 0)
    await site.start()
    there.port = site._server.sockets[0].getsockname()[1]
    yield there
    await runner.cleanup()


@pytest.fixture
async def provider(there):
    async with httpx2.AsyncClient(trust_env=False) as http:
        yield ElevenLabs(http, Settings(sandbox=True, sandbox_address=ADDRESS, http_port=there.port))


async def test_a_number_with_a_carrier_is_told_where_its_agents_calls_go(there, provider):
    taken = await provider.provision(ORDER)
    (number,) = there.store.all()
    assert (taken.provider_number_id, taken.remark) == (number.phone_number_id, None)
    shown = number.shown()
    assert shown["assigned_agent"]["agent_id"] == "agent_1"
    assert (shown["inbound_trunk"]["username"], shown["inbound_trunk"]["media_encryption"]) == ("u", "required")
    outbound = shown["outbound_trunk"]
    assert {name: outbound[name] for name in ("address", "transport", "media_encryption", "enabled_codecs")} == {
        "address": "sip.example.com",
        "transport": "tls",
        "media_encryption": "required",
        "enabled_codecs": ["G722/8000", "PCMU/8000"],
    }
    assert (number.outbound_username, number.outbound_password) == ("u", "p")


async def test_without_a_carrier_or_an_address_of_ours_the_outbound_trunk_is_its_owners(there, provider):
    await provider.provision(replace(ORDER, edge=None))
    assert there.store.all()[0].shown()["outbound_trunk"] is None


async def test_what_its_owner_set_stays(there, provider):
    taken = await provider.provision(ORDER)
    (number,) = there.store.all()
    owners = {
        "inbound_trunk_config": {"allowed_numbers": ["+13035550100"], "remote_domains": ["sip.example.com"]},
        "outbound_trunk_config": {"address": "sip.example.com", "headers": {"X-Shop": "7"}},
    }
    await there.store.change(number, NumberUpdate.model_validate(owners))
    again = replace(ORDER, provider_number_id=taken.provider_number_id, edge="new.example.com", credentials=NEW)
    assert (await provider.provision(again)).remark is not None, "no credentials of ours there: it may be another's"
    await provider.provision(replace(again, edge="sip.example.com"))
    await provider.provision(replace(again, edge="new.example.com"))
    shown = there.store.all()[0].shown()
    assert shown["inbound_trunk"]["allowed_numbers"] == ["+13035550100"]
    assert shown["inbound_trunk"]["remote_domains"] == ["sip.example.com"]
    assert (shown["inbound_trunk"]["username"], shown["outbound_trunk"]["username"]) == ("new", "new")
    assert (shown["outbound_trunk"]["address"], shown["outbound_trunk"]["headers"]) == (
        "new.example.com",
        {"X-Shop": "7"},
    )


NEW = {"username": "new", "password": "other"}


async def test_an_outbound_trunk_to_somebody_else_is_left_and_told(there, provider):
    body = {"phone_number": NUMBER, "label": "x", "provider": "sip_trunk"}
    other = {"address": "acme.pstn.example.com", "credentials": {"username": "acme", "password": "s"}}
    number = await there.store.add(NumberImport.model_validate({**body, "outbound_trunk_config": other}))
    taken = await provider.provision(ORDER)
    assert taken.provider_number_id == number.phone_number_id
    assert "go to acme.pstn.example.com" in taken.remark
    assert "set it to sip.example.com" in taken.remark
    assert (number.outbound.address, number.outbound_username) == ("acme.pstn.example.com", "acme")
    assert number.username == "u"
    assert (await provider.provision(replace(ORDER, edge=None))).remark is None


async def test_a_number_whose_import_nobody_heard_of_is_looked_for_first(there, provider):
    there.loses_answer = True
    with pytest.raises(UnreachableError):
        await provider.provision(ORDER)
    taken = await provider.provision(replace(ORDER, may_be_there=True))
    assert there.asked == ["POST", "GET", "PATCH"]
    assert [number.phone_number_id for number in there.store.all()] == [taken.provider_number_id]


async def test_a_trunk_to_static_addresses_has_its_numbers_on_them(there, provider):
    static = replace(ORDER, server="sip-static.rtc.elevenlabs.io")
    taken = await provider.provision(static)
    assert there.store.all()[0].shown()["livekit_stack"] == "static"
    await provider.provision(replace(ORDER, provider_number_id=taken.provider_number_id))
    assert there.store.all()[0].shown()["livekit_stack"] == "static", "its owner may want that for calls out alone"


async def test_a_number_that_is_gone_there_is_imported_anew(there, provider):
    first = await provider.provision(ORDER)
    await there.store.remove(first.provider_number_id)
    again = await provider.provision(replace(ORDER, provider_number_id=first.provider_number_id))
    assert again.provider_number_id != first.provider_number_id


async def test_many_numbers_are_brought_there_a_few_at_a_time(there, provider):
    """Its limits are on requests at once; who waits here is not refused there."""
    orders = [replace(ORDER, e164=f"+155555573{i:02}") for i in range(20)]
    taken = await asyncio.gather(*map(provider.provision, orders))
    assert len({each.provider_number_id for each in taken}) == 20
    assert there.most_at_once <= 5


async def test_a_refusal_is_told_in_their_words(there, provider):
    with pytest.raises(RefusedError, match="always refused"):
        await provider.provision(replace(ORDER, e164="+15555551235"))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "mode", "transport", "address"),
    [
        ({"sip_name": "sip.example.com"}, "live", "tls", "sip.example.com"),
        ({"sip_name": "sip.example.com", "sip_port": 5070}, "live", "tcp", "sip.example.com:5070"),
        ({"sip_address": "8.8.8.8"}, "live", "udp", "8.8.8.8"),
        ({"sip_address": "2001:4860::8", "sip_port": 5070}, "live", "udp", "[2001:4860::8]:5070"),
        ({"sip_address": "10.0.0.7"}, "live", "tls", None),
        ({}, "live", "tls", None),
        ({"sip_tls_port": 7001}, "test", "tls", "127.0.0.1:7001"),
    ],
)
def test_where_the_outside_finds_the_edge(changes, mode, transport, address):
    assert edge_address(Settings(**changes), mode, transport) == address
