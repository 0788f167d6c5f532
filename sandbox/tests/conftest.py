"""A SIP agent and a carrier that calls it, in this process, on free ports of addresses of their own."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from voxpria_sandbox.accounts import TEST_CREDENTIALS, TEST_HOST, Accounts
from voxpria_sandbox.agent import SipAgent
from voxpria_sandbox.carrier import Carrier, Order, Result
from voxpria_sandbox.elevenlabs import NumberStore
from voxpria_sandbox.media.pacer import Pacer
from voxpria_sandbox.media.speech import Speech
from voxpria_sandbox.openai import OpenAI

AGENT, CARRIER = "127.0.12.2", "127.0.12.3"
NUMBER = "+15555551234"


@dataclass
class World:
    """What a test calls through."""

    agent: SipAgent
    carrier: Carrier
    store: NumberStore
    openai: OpenAI
    port: int

    async def call(self, **order: object) -> Result:
        """Place a call to the test host with its credentials, unless the order says otherwise."""
        return await self.carrier.start(self.order(**order), lambda _name, _facts: None)

    @staticmethod
    def order(**changes: object) -> Order:
        defaults = {"to": NUMBER, "host": TEST_HOST, "credentials": TEST_CREDENTIALS, "talk_seconds": 1}
        return Order(**{**defaults, **changes})  # type: ignore[arg-type]


Worlds = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture(scope="session")
async def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    return await Speech.start(tmp_path_factory.mktemp("speech"))


@pytest.fixture
def worlds(tmp_path: Path, speech: Speech) -> Worlds:
    @contextlib.asynccontextmanager
    async def made(ring_seconds: float = 0.05) -> AsyncIterator[World]:
        pacer, store = Pacer(), NumberStore(tmp_path / "elevenlabs.json")
        openai = OpenAI(tmp_path / "openai.json", "http://127.0.0.1:9")
        agent = SipAgent(AGENT, Accounts(store, openai), speech, pacer, openai, ring_seconds=ring_seconds)
        await listen_on_one_port(agent)
        port = agent.endpoint.transports.ports["udp"]
        carrier = Carrier(CARRIER, (AGENT, port), agent, speech, pacer)
        await carrier.endpoint.transports.listen_udp()
        await carrier.endpoint.transports.listen_stream()
        try:
            yield World(agent, carrier, store, openai, port)
        finally:
            await carrier.close()
            await agent.close()
            await carrier.endpoint.close()
            await agent.endpoint.close()

    return made


async def listen_on_one_port(agent: SipAgent) -> None:
    """Bind UDP and TCP to the same free port."""
    transports = agent.endpoint.transports
    await transports.listen_udp()
    await transports.listen_stream(transports.ports["udp"])


@pytest.fixture
async def world(worlds: Worlds) -> AsyncIterator[World]:
    async with worlds() as made:
        yield made
