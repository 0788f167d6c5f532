"""Bring one instance up and keep it up: `python -m voxpria_launcher.main`, which `./run` calls."""

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import IO, Any

from pydantic import ValidationError

from voxpria_launcher import guard, parts, ports, secrets, summary
from voxpria_launcher.postgres import PostgresError
from voxpria_launcher.settings import Settings
from voxpria_launcher.supervisor import Supervisor

_READY_WITHIN_SECONDS = 60.0
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Our own parts are never behind a proxy, whatever the environment says."""


def main() -> int:
    """Run until told to stop; return the exit code: 0 after a stop, 1 when it can't start."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crashed part's memory holds passwords and voices
    try:
        settings = Settings()
        lock = _lock(settings)
    except (ValidationError, OSError) as error:
        return _fail([str(error)])
    with lock:
        if taken := ports.problems(settings):
            return _fail(taken)
        return guard.run(lambda: asyncio.run(_supervise(settings)))


def _lock(settings: Settings) -> IO[str]:
    """Take the data folder; raise OSError when another instance has it."""
    settings.data.mkdir(parents=True, exist_ok=True)
    lock = (settings.data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise OSError(
            f"Another instance runs on the data folder {settings.data}. End it, or set VOXPRIA_DATA_DIR."
        ) from None
    return lock


async def _supervise(settings: Settings) -> int:
    stop = asyncio.Event()
    started = time.monotonic()
    try:
        waves = await asyncio.to_thread(_prepare, settings)
    except (PostgresError, OSError) as error:
        return _fail([str(error)])
    supervisor = Supervisor(waves, _say)
    _handle_signals(stop, supervisor)
    running = asyncio.create_task(supervisor.run(stop))
    watch = asyncio.create_task(_announce(settings, [part for wave in waves for part in wave], started))
    try:
        await running
    finally:
        watch.cancel()
    _say("Stopped; nothing is left running.")
    return 0


def _prepare(settings: Settings) -> list[list[parts.Part]]:
    (settings.data / "log").mkdir(exist_ok=True)
    settings.run.mkdir(mode=0o711, parents=True, exist_ok=True)
    if settings.run.is_symlink() or settings.run.stat().st_uid != os.geteuid():
        raise OSError(f"The run folder {settings.run} belongs to somebody else; set VOXPRIA_RUN_DIR to another.")
    secrets.ensure(settings.data)
    return parts.declare(settings)


def _handle_signals(stop: asyncio.Event, supervisor: Supervisor) -> None:
    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
            return
        stop.set()
        _say("Stopping …")

    for number in guard.ENDING_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


async def _announce(settings: Settings, declared: list[parts.Part], started: float) -> None:
    """Say that all is up, and what to do next; or what is not up."""
    _say("Starting " + ", ".join(sorted(part.name for part in declared)) + " …")
    state: dict[str, Any] = {}
    while time.monotonic() - started < _READY_WITHIN_SECONDS:
        is_ready, state = await asyncio.to_thread(_readiness, settings)
        if is_ready:
            _say(f"Up after {time.monotonic() - started:.1f} s.\n\n{summary.of(settings)}")
            return
        await asyncio.sleep(0.1)
    _say(f"Not ready after {_READY_WITHIN_SECONDS:g} s: {json.dumps(state)}\n{summary.of_logs(declared)}")


def _readiness(settings: Settings) -> tuple[bool, dict[str, Any]]:
    """Ask the API whether every part is up; what it says beside."""
    try:
        with _DIRECTLY.open(f"{settings.api_url}/readyz", timeout=3) as answer:
            return True, json.load(answer)
    except urllib.error.HTTPError as error:
        with contextlib.suppress(ValueError):
            return False, json.load(error)
        return False, {"api": str(error)}
    except (OSError, ValueError) as error:
        return False, {"api": str(error)}


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed; what we were told to do is still done
        print(line, flush=True)


def _fail(lines: list[str]) -> int:
    print("\n".join(["VoxPria can't start:", *(f"  {line}" for line in lines)]), file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main())
