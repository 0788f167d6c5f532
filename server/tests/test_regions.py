"""Accounts whose data stays in one region: their API is where their SIP server is, and knows nothing of the others."""

from datetime import UTC, datetime

import httpx2
import pytest
from voxpria_server.providers.base import NumberOrder
from voxpria_server.providers.elevenlabs import ElevenLabs
from voxpria_server.providers.elevenlabs_conversations import AnsweredCall, Conversations
from voxpria_server.providers.hosts import api_url, region_of
from voxpria_server.providers.openai import OpenAI, Project
from voxpria_server.settings import Settings

pytestmark = pytest.mark.unit

SETTINGS = Settings(sandbox=True)
EU = "sip-static.rtc.eu.residency.elevenlabs.io"


@pytest.mark.parametrize(
    ("provider", "server", "api"),
    [
        ("elevenlabs", "sip.rtc.elevenlabs.io", "https://api.elevenlabs.io"),
        ("elevenlabs", "sip-static.rtc.elevenlabs.io", "https://api.elevenlabs.io"),
        ("elevenlabs", EU, "https://api.eu.residency.elevenlabs.io"),
        ("elevenlabs", "SIP.RTC.IN.residency.elevenlabs.io", "https://api.in.residency.elevenlabs.io"),
        ("elevenlabs", "sip.eu.residency.elevenlabs.io.evil.example", "https://api.elevenlabs.io"),
        ("elevenlabs", "sip.evil.example/.eu.residency.elevenlabs.io", "https://api.elevenlabs.io"),
        ("openai", "sip.api.openai.com", "https://api.openai.com"),
        ("openai", "sip-eu.api.openai.com", "https://eu.api.openai.com"),
        ("openai", "sip-in.api.openai.com", "https://in.api.openai.com"),
        ("openai", "sip-eu.api.openai.com.evil.example", "https://api.openai.com"),
        ("openai", "192.0.2.1", "https://api.openai.com"),
    ],
)
def test_the_api_follows_from_the_sip_server(provider, server, api):
    assert api_url(SETTINGS, provider, "live", region_of(provider, server)) == api


def test_in_test_mode_it_is_the_sandbox_wherever_the_server_is():
    assert api_url(SETTINGS, "openai", "test", "eu") == f"{SETTINGS.sandbox_url}/openai"


async def test_each_request_goes_to_the_accounts_own_region():
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.host)
        return httpx2.Response(200, json={"phone_number_id": "phnum_1", "name": "Reception", "conversations": []})

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        elevenlabs = ElevenLabs(http, SETTINGS)
        credentials = {"api_key": "k", "username": "u", "password": "p"}
        order = NumberOrder("+15555551234", "live", EU, "tls", "allowed", (), None, None, credentials)
        assert (await elevenlabs.provision(order)).provider_number_id == "phnum_1"
        assert await elevenlabs.agent_name("live", EU, credentials, "agent_1") == "Reception"
        call = AnsweredCall("call_1", "sip-call-id", datetime.now(UTC), "live", EU)
        assert await Conversations(http, SETTINGS).find("k", call) is None
        project = Project.of("live", "sip-eu.api.openai.com", {"project_id": "proj_1", "api_key": "sk-1"})
        await OpenAI(http, SETTINGS).accept(project, "rtc_1", {"type": "realtime"})
    assert asked == ["api.eu.residency.elevenlabs.io"] * 4 + ["eu.api.openai.com"]


def test_a_new_key_leaves_a_trunk_in_its_project_and_another_region_does_not():
    was, rekeyed = (
        Project.of("live", "sip.api.openai.com", {"project_id": "proj_1", "api_key": key}) for key in ("sk-1", "sk-2")
    )
    moved = Project.of("live", "sip-eu.api.openai.com", {"project_id": "proj_1", "api_key": "sk-1"})
    assert was == rekeyed
    assert was != moved
