"""Work that goes on beside whoever began it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """A set of running work, each held until it is over: the event loop alone would let go of it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether all of it is over."""
        return not self._tasks

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work, and go on at once."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def look_around(self, begin_what_is_due: Callable[[], None], every_seconds: float) -> None:
        """Look again and again for work that is due, until cancelled; what runs then stops where it is."""
        try:
            while True:
                begin_what_is_due()
                await asyncio.sleep(every_seconds)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Have all of it stop where it is."""
        for task in self._tasks:
            task.cancel()

    async def settle(self, seconds: float) -> None:
        """Wait until what has begun so far is over, at most this long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
