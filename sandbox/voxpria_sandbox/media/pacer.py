"""The one clock of all streams: 20 ms after 20 ms, however late the event loop was."""

import asyncio
from typing import Protocol

FRAME_SECONDS = 0.02
_MOST_CAUGHT_UP = 5
"""Frames sent in a row after a stall; older ones are skipped, which the timestamps show as a gap."""


class Paced(Protocol):
    """Something that acts every 20 ms."""

    def tick(self, number: int) -> None:
        """Act for this frame; numbers rise by one a frame, and leave out those skipped."""
        ...


class Pacer:
    """Ticks its streams; sleeps while it has none."""

    def __init__(self) -> None:
        self._streams: dict[Paced, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0
        self._done = -1

    def add(self, stream: Paced) -> None:
        """Tick this stream from the next frame on."""
        self._streams[stream] = None
        if self._timer is None:
            loop = asyncio.get_running_loop()
            # the frame numbers go on from where they were: a stream may keep its place over a pause
            self._started_at = loop.time() - (self._done + 1) * FRAME_SECONDS
            self._timer = loop.call_at(loop.time(), self._run)

    def remove(self, stream: Paced) -> None:
        """Tick this stream no more."""
        self._streams.pop(stream, None)

    def _run(self) -> None:
        if not self._streams:
            self._timer = None
            return
        loop = asyncio.get_running_loop()
        due = int((loop.time() - self._started_at) / FRAME_SECONDS)
        for number in range(max(self._done + 1, due - _MOST_CAUGHT_UP + 1), due + 1):
            for stream in tuple(self._streams):
                stream.tick(number)
        self._done = max(due, self._done)
        self._timer = loop.call_at(self._started_at + (self._done + 1) * FRAME_SECONDS, self._run)
