"""Keeps parts running: starts them, brings back what dies, stops all in order, leaves no process behind."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence

from voxpria_launcher import guard
from voxpria_launcher.parts import Part

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 10.0
_HEALTHY_AFTER_SECONDS = 30.0
_LOG_LIMIT_BYTES = 20 * 1024 * 1024


class Supervisor:
    """Runs the parts given in waves (the order of their stopping) until `stop` is called."""

    def __init__(self, waves: Sequence[Sequence[Part]], say: Callable[[str], None]) -> None:
        """`say` takes a line for the person who watches."""
        self._waves = [[_Kept(part, say) for part in wave] for wave in waves]

    async def run(self, until: asyncio.Event) -> None:
        """Keep every part running until the event is set, then stop them all."""
        kept = [part for wave in self._waves for part in wave]
        keepers = [asyncio.create_task(part.keep()) for part in kept]
        chores = asyncio.create_task(_do_chores([part.part for part in kept]))
        stopped = asyncio.create_task(until.wait())
        await asyncio.wait([stopped, *keepers], return_when=asyncio.FIRST_COMPLETED)
        for wave in self._waves:
            await asyncio.gather(*(part.stop() for part in wave))
        for task in (chores, stopped):
            task.cancel()
        await asyncio.gather(*keepers)

    def kill(self) -> None:
        """End every part at once; none is started again."""
        kept = [part for wave in self._waves for part in wave]
        for part in kept:
            part.give_up()
        for part in kept:
            part.kill_group()


class _Kept:
    """One part, and the process that is it now."""

    def __init__(self, part: Part, say: Callable[[str], None]) -> None:
        self.part, self._say = part, say
        self._process: asyncio.subprocess.Process | None = None
        self._group: int | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Start the part and start it again whenever it ends, with growing pauses while it does not stay up."""
        pause = 0.0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once()
            self.kill_group()  # what the dead process leaves behind holds its ports
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _HEALTHY_AFTER_SECONDS:
                pause = 0.0
            self._say(f"{self.part.name} {_ending(code)}; starting it again. Its log: {self.part.log}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause * random.uniform(0.9, 1.1))  # noqa: S311
            pause = min(max(pause * 2, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)

    async def _run_once(self) -> int:
        parent = os.getpid()
        with self.part.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.part.command,
                env=self.part.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: guard.die_with_parent(signal.SIGKILL, parent),
            )
        self._group = self._process.pid
        if self._stopping.is_set():
            self._signal(self.part.stop_signal)
        return await self._process.wait()

    def give_up(self) -> None:
        """Let the part's next end be its last."""
        self._stopping.set()

    async def stop(self) -> None:
        """Ask the part to end; after its time is over, end it."""
        self._stopping.set()
        self._signal(self.part.stop_signal)
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), self.part.stop_seconds)
            except TimeoutError:
                self._say(f"{self.part.name} did not stop within {self.part.stop_seconds:g} s; killed")
        self.kill_group()

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill_group(self) -> None:
        """End every process of the part's session that is left."""
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


async def _do_chores(parts: Sequence[Part]) -> None:
    """Keep each log within its bound: the newest part stays, one older part beside it."""
    while True:
        for part in parts:
            await asyncio.to_thread(rotate, part)
        await asyncio.sleep(5)


def rotate(part: Part, limit_bytes: int = _LOG_LIMIT_BYTES) -> None:
    """Move a log that has grown too long aside. Its writer holds it open for appending, so it is copied and cut."""
    if not part.log.exists() or part.log.stat().st_size <= limit_bytes:
        return
    older = part.log.with_suffix(".log.1")
    with part.log.open("rb") as source, older.open("wb") as target:
        source.seek(-limit_bytes, os.SEEK_END)
        while block := source.read(1 << 20):
            target.write(block)
    os.truncate(part.log, 0)
