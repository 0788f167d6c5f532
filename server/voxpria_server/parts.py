"""The parts of a process, wired by hand: settings -> database -> providers -> worker. Nothing looks itself up."""

from functools import partial
from typing import Any

import httpx2

from voxpria_server.auth.gate import Gate
from voxpria_server.auth.idempotency import Turns
from voxpria_server.auth.jobs import blueprint as auth_blueprint
from voxpria_server.calls.jobs import blueprint as calls_blueprint
from voxpria_server.calls.links import load_links
from voxpria_server.calls.recordings import RecordingStore, open_store
from voxpria_server.calls.traces import TraceStore
from voxpria_server.kit import tracing
from voxpria_server.kit.db import Database
from voxpria_server.kit.ending import close_all
from voxpria_server.kit.jobs import Blueprint, Worker, create_app
from voxpria_server.kit.sealing import load_sealer
from voxpria_server.numbers.importer import Importer
from voxpria_server.numbers.jobs import blueprint as numbers_blueprint
from voxpria_server.provider_hooks.jobs import blueprint as provider_hooks_blueprint
from voxpria_server.provider_hooks.scribe import Scribe
from voxpria_server.providers.elevenlabs import ElevenLabs
from voxpria_server.providers.elevenlabs_conversations import Conversations
from voxpria_server.providers.generic import Generic
from voxpria_server.providers.openai import OpenAI
from voxpria_server.reference.lookout import Lookout
from voxpria_server.routing import edges
from voxpria_server.settings import Settings
from voxpria_server.trunks.jobs import blueprint as trunks_blueprint
from voxpria_server.webhooks.courier import Courier
from voxpria_server.webhooks.jobs import blueprint as webhooks_blueprint
from voxpria_server.webhooks.sender import Sender

PROVIDER_TIMEOUT_SECONDS = 30
END_SECONDS = 3.7
"""From the signal to the end of a process, however much hangs: less than the launcher waits for it."""
_CLOSE_SECONDS = 1.0

JOBS_AT_ONCE = 56

BLUEPRINTS: tuple[Blueprint, ...] = (
    auth_blueprint,
    calls_blueprint,
    numbers_blueprint,
    provider_hooks_blueprint,
    trunks_blueprint,
    webhooks_blueprint,
)
"""The durable work of every slice."""

Parts = dict[str, Any]
"""What endpoints find on `app.state` and jobs in `context.additional_context`, by the same names."""


def create_parts(settings: Settings) -> Parts:
    """Return the process's parts. Call it within the event loop; `close_parts` ends them."""
    database = Database(settings.database_url.get_secret_value(), pool_size=settings.database_pool_size)
    http = httpx2.AsyncClient(timeout=httpx2.Timeout(PROVIDER_TIMEOUT_SECONDS, connect=5), trust_env=False)
    store = open_store(settings.recordings_url, settings.data_dir / "recordings")
    return {
        "settings": settings,
        "database": database,
        "sealer": load_sealer(settings.master_key_file),
        "gate": Gate(
            database,
            requests_per_hour=settings.requests_per_hour,
            imports_per_minute=settings.imports_per_minute,
        ),
        "importer": Importer(database, imports_per_minute=settings.imports_per_minute),
        "turns": Turns(),
        "http": http,
        "providers": {
            "elevenlabs": ElevenLabs(http, settings),
            "openai": OpenAI(http, settings),
            "generic": Generic(http, settings),
        },
        "conversations": Conversations(http, settings),
        "edge_token": settings.edge_token_file.read_text().strip(),
        "store": store,
        "recordings": RecordingStore(store, settings.recording_max_bytes),
        "traces": TraceStore(store),
        "recording_links": load_links(settings.master_key_file, settings.public_url, settings.recording_link_seconds),
        "webhook_sender": Sender(allow_private=settings.private_webhooks_are_allowed),
        "has_edge": partial(edges.is_any_there, database),
        "wait_until_live": partial(edges.wait_until_live, database),
    }


async def close_parts(parts: Parts) -> None:
    """Close what `create_parts` opened; what does not close in time is left to the end of the process."""
    await close_all(
        _CLOSE_SECONDS,
        webhook_sender=parts["webhook_sender"].close(),
        http=parts["http"].aclose(),
        database=parts["database"].close(),
        tracing=tracing.close(),
    )


def create_background(settings: Settings, parts: Parts) -> dict[str, Worker | Courier | Lookout | Scribe]:
    """Return what works in a process beside requests, by name, not yet started: each has `start` and `stop`."""
    database, sealer = parts["database"], parts["sealer"]
    make_app = partial(create_app, settings.database_url.get_secret_value(), BLUEPRINTS)
    return {
        "worker": Worker(make_app, parts, concurrency=JOBS_AT_ONCE),
        "courier": Courier(database, sealer, parts["webhook_sender"], settings.webhook_attempts_per_minute),
        "lookout": Lookout(parts),
        "scribe": Scribe(database, sealer, parts["providers"]["openai"]),
    }
