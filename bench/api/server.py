"""Our API as it is run, its worker within, on a database of the bench's own."""

import asyncio
import base64
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.api.cluster import Cluster
from bench.helper import Process, running
from tests.ports import free_ports

EDGE_TOKEN = "bench"  # noqa: S105  (of this bench alone)
_MANY = "1000000000"


@dataclass(frozen=True)
class Api:
    """The running API."""

    url: str
    process: Process


@contextlib.contextmanager
def api(found: Cluster, work: Path) -> Iterator[Api]:
    """Run our API as it is run, its limits set out of reach; its start migrates the database."""
    (work / "secrets").mkdir(parents=True)
    (work / "secrets" / "master_key").write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    (work / "secrets" / "edge_token").write_text(f"{EDGE_TOKEN}\n")
    (port,) = free_ports(1)
    environment = {
        "VOXPRIA_DATA_DIR": str(work),
        "VOXPRIA_DATABASE_URL": found.url,
        "VOXPRIA_HTTP_PORT": str(port),
        "VOXPRIA_REQUESTS_PER_HOUR": _MANY,
        "VOXPRIA_IMPORTS_PER_MINUTE": _MANY,
        "VOXPRIA_WEBHOOK_ATTEMPTS_PER_MINUTE": "1000000",
        "VOXPRIA_ALLOW_PRIVATE_WEBHOOKS": "true",
    }
    command = [sys.executable, "-m", "voxpria_server"]
    with running(command, work / "api.log", environment) as process:
        url = f"http://127.0.0.1:{port}"
        asyncio.run(answers(f"{url}/healthz"))
        yield Api(url, process)


async def answers(url: str) -> None:
    """Wait until something answers there."""
    deadline = time.monotonic() + 120
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise TimeoutError(url)
