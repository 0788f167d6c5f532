"""The worker process: the jobs alone, for machines that run no API.

python -m voxpria_server.worker
"""

import asyncio
import signal

from voxpria_server.kit import logs, tracing
from voxpria_server.kit.ending import end_process_within
from voxpria_server.migrations import migrate_when_up
from voxpria_server.parts import END_SECONDS, close_parts, create_background, create_parts
from voxpria_server.settings import Settings


async def _run(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    parts = create_parts(settings)
    background = create_background(settings, parts).values()
    for each in background:
        each.start()
    await stopped.wait()
    end_process_within(END_SECONDS)
    await asyncio.gather(*(each.stop() for each in background))
    await close_parts(parts)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    logs.set_up(settings.log_level)
    tracing.set_up("voxpria-worker")
    migrate_when_up(settings.database_url.get_secret_value(), settings.database_wait_seconds)
    asyncio.run(_run(settings))


if __name__ == "__main__":
    main()
