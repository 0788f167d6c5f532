"""The parts of an instance: what each is, how it is started, and in which order all are stopped."""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from voxpria_launcher import postgres
from voxpria_launcher.settings import Settings


@dataclass(frozen=True)
class Part:
    """A process to keep running. All start at once: each waits for what it needs by itself."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 4


def declare(settings: Settings) -> list[list[Part]]:
    """Return the parts in waves, in the order of their stopping.

    The sandbox first, so that its calls end by BYE; the agent after Kamailio, so that it hears of every end; the
    database last.
    """
    environment = settings.environment()

    def part(name: str, command: list[str], stop_signal: int = signal.SIGTERM) -> Part:
        return Part(name, command, environment, settings.data / "log" / f"{name}.log", stop_signal)

    def python(name: str, *module_and_arguments: str) -> Part:
        return part(name, [sys.executable, "-m", *module_and_arguments])

    waves = [
        [python("sandbox", "voxpria_sandbox.main")] if settings.sandbox else [],
        [python("kamailio", "voxpria_edge.daemons", "kamailio")],
        [python("edge-agent", "voxpria_edge.agent")],
        [python("rtpengine", "voxpria_edge.daemons", "rtpengine"), python("api", "voxpria_server")],
    ]
    if settings.database_url is None:
        # SIGINT: PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave
        waves.append([part("postgres", postgres.prepare(settings), signal.SIGINT)])
    return waves
