"""What was said in a call: kept, shown, and fetched from a provider that is a while in writing it down."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from aiohttp import web
from voxpria_server.calls import service
from voxpria_server.providers.base import RefusedError, UnreachableError
from voxpria_server.providers.elevenlabs_api import key_of
from voxpria_server.providers.elevenlabs_conversations import AnsweredCall, Conversations

from server.tests.edge_client import DAY, Story, connect

BEGUN = datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)
TRUNK = {"name": "E", "provider": "elevenlabs", "credentials": {"username": "u", "password": "p"}}


class Provider:
    """A scripted ElevenLabs: conversations by id, and what each request is answered with."""

    def __init__(self) -> None:
        self.conversations: dict[str, dict] = {}
        self.statuses: list[int] = []
        self.asked: list[tuple[str, dict, str | None]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, dict(request.query), request.headers.get("xi-api-key")))
        if self.statuses:
            return web.json_response({"detail": "scripted"}, status=self.statuses.pop(0))
        _, _, name = request.path.partition("/conversations/")
        if name:
            return web.json_response(self.conversations[name])
        first = int(request.query.get("cursor", "0"))
        names = [{"conversation_id": name} for name in self.conversations][first : first + 2]
        has_more = first + 2 < len(self.conversations)
        return web.json_response({"conversations": names, "has_more": has_more, "next_cursor": str(first + 2)})

    def hold(self, name: str, status: str = "done", turns=(), **phone_call) -> None:
        self.conversations[name] = {
            "conversation_id": name,
            "status": status,
            "transcript": list(turns),
            "metadata": {"start_time_unix_secs": int(BEGUN.timestamp()), "phone_call": phone_call},
        }


@pytest.fixture
async def provider(settings):
    provider = Provider()
    app = web.Application()
    app.router.add_route("GET", "/elevenlabs/v1/convai/{tail:.*}", provider.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
    yield provider
    await runner.cleanup()


@pytest.fixture
async def conversations(settings):
    async with httpx2.AsyncClient(timeout=5) as http:
        yield Conversations(http, settings)


CALL = AnsweredCall("call_ours", "sip-call-id@carrier", BEGUN, "test", "sip.rtc.elevenlabs.io")
SAID = ({"role": "agent", "message": "Hello.", "time_in_call_secs": 1},)


@pytest.mark.parametrize(
    "names",
    [
        {"call_sid": "sip-call-id@carrier"},
        {"call_id": "sip-call-id@carrier"},
        {"sip_header_dynamic_variables": {"sip_voxpria_call_id": "call_ours"}},
    ],
)
async def test_a_conversation_is_found_by_any_of_its_names(conversations, provider, names):
    for n in range(4):
        provider.hold(f"other{n}", call_sid=f"{n}")
    provider.hold("mine", turns=SAID, **names)
    found = await conversations.find("key", CALL)
    assert (found.id, [(turn.speaker, turn.text, turn.at) for turn in found.turns]) == (
        "mine",
        [("agent", "Hello.", BEGUN + timedelta(seconds=1))],
    )
    path, query, key = provider.asked[0]
    assert (path, key) == ("/elevenlabs/v1/convai/conversations", "key")
    assert int(query["call_start_after_unix"]) < BEGUN.timestamp() < int(query["call_start_before_unix"])


async def test_one_that_is_not_written_down_yet_is_none(conversations, provider):
    assert await conversations.find("key", CALL) is None
    provider.hold("mine", status="processing", call_sid=CALL.sip_call_id)
    assert await conversations.find("key", CALL) is None


async def test_odd_turns_are_left_out_and_long_ones_cut(conversations, provider):
    turns = [
        {"role": "user", "message": "a\0b", "time_in_call_secs": 2},
        {"role": "agent", "message": None, "time_in_call_secs": 3},
        {"role": "agent", "message": "  ", "time_in_call_secs": 3},
        {"role": "agent", "message": "x" * 20_000, "time_in_call_secs": 4.5},
        {"role": "agent", "message": "when?", "time_in_call_secs": "soon"},
        "nonsense",
    ]
    provider.hold("mine", turns=turns, call_sid=CALL.sip_call_id)
    found = await conversations.find("key", CALL)
    assert [(turn.speaker, len(turn.text)) for turn in found.turns] == [("caller", 2), ("agent", 10_000)]


async def test_refusals_and_troubles_are_told_apart(conversations, provider):
    provider.statuses = [401, 503, 429]
    with pytest.raises(RefusedError):
        await conversations.find("key", CALL)
    for _ in range(2):
        with pytest.raises(UnreachableError):
            await conversations.find("key", CALL)


async def test_who_is_asked(settings):
    assert key_of({}, "live") is None
    assert key_of({"api_key": "k"}, "live") == "k"
    assert key_of({}, "test") == "sandbox"
    async with httpx2.AsyncClient() as http:
        without_sandbox = Conversations(http, settings.model_copy(update={"sandbox": False}))
        with pytest.raises(RefusedError, match="the sandbox is off"):
            await without_sandbox.find("k", CALL)


async def until(probe, seconds: float = 90):
    deadline = time.monotonic() + seconds
    while not (value := await probe()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.05)
    return value


async def test_a_call_gets_its_transcript_once_the_provider_has_it(client, api, provider):
    trunk = (await client.post("/v1/sip/trunks", json=TRUNK)).json()["id"]
    body = {"phone_number": "+15555551234", "trunk_id": trunk}
    number = (await client.post("/v1/phone-numbers/import", json=body)).json()["id"]
    story = Story(DAY, number_id=number, trunk_id=trunk)
    turns = [
        {"role": "agent", "message": "Hello! How can I help?", "time_in_call_secs": 0},
        {"role": "user", "message": "I need help with my account.", "time_in_call_secs": 3},
    ]
    provider.hold("conv", status="processing", call_sid="1@carrier.test")
    await (await connect(api)).send(*story.completed())
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert (call["transcript"], call["transcript_available"]) == (None, False)

    async def was_asked():
        return any(path.endswith("/conv") for path, _, _ in provider.asked)

    await until(was_asked)
    provider.hold("conv", turns=turns, call_sid="1@carrier.test")

    async def is_available():
        return (await client.get("/v1/calls")).json()["data"][0]["transcript_available"]

    await until(is_available)
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert call["transcript"] == {
        "segments": [
            {"speaker": "agent", "text": "Hello! How can I help?", "timestamp": "2026-03-04T05:06:08Z"},
            {"speaker": "caller", "text": "I need help with my account.", "timestamp": "2026-03-04T05:06:11Z"},
        ]
    }


async def test_the_newer_transcript_stands_and_an_empty_one_is_none(client, api):
    story = Story()
    await (await connect(api)).send(*story.completed())

    async def add(call_id, *segments):
        async with api.database.transaction() as conn:
            return await service.add_transcript(conn, call_id, segments, source="test")

    assert await add(story.id) is False
    assert await add("call_none", ("agent", "x", DAY)) is False
    assert await add(story.id, ("agent", "one", DAY)) is True
    assert await add(story.id, ("caller", "late", DAY + timedelta(seconds=9)), ("agent", "two", DAY)) is True
    call = (await client.get(f"/v1/calls/{story.id}")).json()
    assert [segment["text"] for segment in call["transcript"]["segments"]] == ["two", "late"]
