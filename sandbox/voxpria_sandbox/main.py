"""The sandbox's process: SIP agent, carrier and HTTP, on one event loop."""

import asyncio
import contextlib
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from aiohttp import web
from voxpria_sip.endpoint import Endpoint

from voxpria_sandbox import certificates, logs
from voxpria_sandbox.accounts import Accounts
from voxpria_sandbox.agent import SipAgent
from voxpria_sandbox.carrier import Carrier
from voxpria_sandbox.elevenlabs import NumberStore
from voxpria_sandbox.elevenlabs_agents import AgentStore
from voxpria_sandbox.http import app
from voxpria_sandbox.media.pacer import Pacer
from voxpria_sandbox.media.speech import Speech, SpeechError
from voxpria_sandbox.numbers import SLOW_SECONDS
from voxpria_sandbox.openai import OpenAI
from voxpria_sandbox.settings import Settings

_HANG_UP_SECONDS = 1.0
_HTTP_SECONDS = 0.3

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sandbox:
    """The running parts."""

    agent: SipAgent
    carrier: Carrier
    provider: Carrier
    """Places calls for the agents of providers, from their address."""


@contextlib.asynccontextmanager
async def running(settings: Settings, slow_seconds: float = SLOW_SECONDS) -> AsyncIterator[Sandbox]:
    """Run the sandbox; on the way out every live call is ended. Raises OSError, SpeechError."""
    tls = await asyncio.to_thread(certificates.server_context, settings.folder, settings.sandbox_address)
    speech, pacer = await Speech.start(settings.folder / "speech"), Pacer()
    store = NumberStore(settings.folder / "elevenlabs.json")
    agents = AgentStore(settings.folder / "elevenlabs_agents.json")
    openai = OpenAI(settings.folder / "openai.json", settings.local_api_url)
    agent = SipAgent(settings.sandbox_address, Accounts(store, openai), speech, pacer, openai)
    edge = (settings.sip_address, settings.sip_port)
    carrier = Carrier(settings.sandbox_carrier_address, edge, agent, speech, pacer)
    provider = Carrier(settings.sandbox_address, edge, agent, speech, pacer)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(agent.endpoint.close)
        stack.push_async_callback(carrier.endpoint.close)
        stack.push_async_callback(provider.endpoint.close)
        await _listen(agent.endpoint, settings.sip_port, settings.sip_tls_port, tls)
        await _listen(carrier.endpoint, 0, 0, None)
        await _listen(provider.endpoint, 0, 0, None)
        stack.push_async_callback(_end_calls, agent, carrier, provider)
        runner = web.AppRunner(
            app.build(carrier, provider, agent, store, agents, openai, slow_seconds, settings.edge_names),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_HTTP_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.sandbox_address, settings.http_port).start()
        yield Sandbox(agent, carrier, provider)


async def _listen(endpoint: Endpoint, port: int, tls_port: int, tls: ssl.SSLContext | None) -> None:
    await endpoint.transports.listen_udp(port)
    await endpoint.transports.listen_stream(port)
    if tls is not None:
        await endpoint.transports.listen_stream(tls_port, tls)


async def _end_calls(agent: SipAgent, *callers: Carrier) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HANG_UP_SECONDS):
            await asyncio.gather(*(caller.close() for caller in callers))
            await agent.close()


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings):
        log.info("the sandbox is up", http=settings.url, sip=f"{settings.sandbox_address}:{settings.sip_port}")
        await stop.wait()
    log.info("the sandbox has ended")


def main() -> None:
    """Run the sandbox; exit with 1 if it can't start."""
    logs.configure()
    try:
        asyncio.run(serve(Settings()))
    except (OSError, SpeechError) as error:
        log.critical("the sandbox can't start", problem=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
