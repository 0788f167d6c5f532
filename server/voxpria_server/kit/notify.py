"""PostgreSQL's NOTIFY, heard on one connection a process and shared by all who wait.

A waiter opens its ear before it looks at the state, so nothing can happen unheard between the two; and every
ear rings after a reconnect, because something may have been said while nobody listened.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

from voxpria_server.kit.ending import end_task
from voxpria_server.kit.logs import get_logger

_log = get_logger(__name__)
_CONNECT_TIMEOUT_SECONDS = 3.0
_CHECK_SECONDS = 10.0
_MAX_PAUSE_SECONDS = 2.0
_STOP_SECONDS = 0.5


class Ear:
    """Rings when its channel was notified, or may have been."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the waiter; rings before it waits are kept."""
        self._rung.set()

    async def wait(self, timeout_seconds: float) -> bool:
        """Wait for the next ring; False when none came in time."""
        try:
            async with asyncio.timeout(max(timeout_seconds, 0)):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class Listener:
    """The one listening connection, kept up by its task. Channels are constants of the program."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ears: dict[str, set[Ear]] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_ending = False

    @contextmanager
    def ear(self, channel: str) -> Iterator[Ear]:
        """Open an ear on `channel`. The first one starts the listener, and rings once it listens."""
        ear = Ear()
        if channel not in self._ears:
            self._ears[channel] = set()
            self._changed.set()
        self._ears[channel].add(ear)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="database listener")
        try:
            yield ear
        finally:
            self._ears[channel].discard(ear)

    def seconds_left(self, deadline: float) -> float:
        """Return how long may be waited until `deadline`, in the loop's time; not at all once the process ends."""
        return 0.0 if self._is_ending else deadline - asyncio.get_running_loop().time()

    def release(self) -> None:
        """Wake all who wait, to give up: the process ends."""
        self._is_ending = True
        for channel in self._ears:
            self._ring(channel)

    async def stop(self) -> None:
        """Close the connection and end the task."""
        if self._task is not None:
            await end_task(self._task, _STOP_SECONDS)
            self._task = None

    async def _run(self) -> None:
        pause = 0.05
        while True:
            try:
                await self._listen()
                pause = 0.05
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("database listener lost its connection", error=type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (jitter)
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    async def _listen(self) -> None:
        """Listen on every channel until the connection is lost."""
        connection = await asyncpg.connect(self._url, timeout=_CONNECT_TIMEOUT_SECONDS, command_timeout=5)
        try:
            connection.add_termination_listener(lambda _: self._changed.set())
            heard: set[str] = set()
            while not connection.is_closed():
                self._changed.clear()
                for channel in self._ears.keys() - heard:
                    await connection.add_listener(channel, self._heard)
                    heard.add(channel)
                    self._ring(channel)
                await self._until_changed()
                await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    async def _until_changed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._changed.wait()

    def _heard(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._ring(channel)

    def _ring(self, channel: str) -> None:
        for ear in self._ears[channel]:
            ear.ring()
