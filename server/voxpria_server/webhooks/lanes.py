"""How many attempts may run at once in this process, so that slow servers hold up their own deliveries only.

An attempt that waits for an answer costs little, so there are many lanes; what is scarce is shared by three bounds:
for a webhook, for an account, and for all. A webhook that was slow to answer, or is right now, gets few.

What finds the lanes of a quick webhook taken stands in `Line` for the next of them; it costs nothing but memory there.
"""

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_AT_ONCE = 200
MOST_OF_AN_ACCOUNT = 24
MOST_OF_A_WEBHOOK = 8
MOST_OF_A_SLOW_WEBHOOK = 2
SLOW_SECONDS = 2.0
MOST_IN_LINE = 100
"""Of a webhook: as many as an account may have in a minute, if nothing else is set."""
LINE_SECONDS = 1.0
_WAIT_SECONDS = (0.5, 10.0)
_KEPT = 10_000


@dataclass
class _Lane:
    """The attempts to one webhook."""

    running: list[float] = field(default_factory=list)
    """When each began."""
    last_seconds: float = 0.0
    next_turn: float = 0.0

    def is_slow(self, now: float) -> bool:
        """Tell whether it was slow to answer, or is."""
        return self.last_seconds >= SLOW_SECONDS or any(now - began >= SLOW_SECONDS for began in self.running)

    def most(self, now: float) -> int:
        """Return how many may run at once."""
        return MOST_OF_A_SLOW_WEBHOOK if self.is_slow(now) else MOST_OF_A_WEBHOOK


class Lanes:
    """The lanes of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._of_account: Counter[str] = Counter()

    @contextmanager
    def enter(self, webhook_id: str, account: str) -> Iterator[float | None]:
        """Give None if one more attempt may run now, for as long as the context lasts; else the seconds to wait.

        Those who wait for one webhook are told ever later times, at the pace at which it answers: each comes back once.
        """
        now, lane = self._clock(), self._lane(webhook_id)
        wait = self._wait(lane, account, now)
        if wait is not None:
            yield wait
            return
        lane.running.append(now)
        self._of_account[account] += 1
        try:
            yield None
        finally:
            lane.running.remove(now)
            lane.last_seconds = self._clock() - now
            self._of_account -= Counter({account: 1})

    def are_quick(self, webhook_id: str) -> bool:
        """Tell whether a webhook has all its lanes, all of them taken: one is free again soon."""
        lane = self._lane(webhook_id)
        return len(lane.running) >= MOST_OF_A_WEBHOOK and not lane.is_slow(self._clock())

    def _lane(self, webhook_id: str) -> _Lane:
        if len(self._lanes) >= _KEPT:
            self._lanes = {name: lane for name, lane in self._lanes.items() if lane.running}
        return self._lanes.setdefault(webhook_id, _Lane())

    def _wait(self, lane: _Lane, account: str, now: float) -> float | None:
        most = lane.most(now)
        if len(lane.running) >= most:
            shortest, longest = _WAIT_SECONDS
            pace = min(max(lane.last_seconds, shortest), longest) / most
            lane.next_turn = max(lane.next_turn, now) + pace
            return lane.next_turn - now
        if self._of_account[account] >= MOST_OF_AN_ACCOUNT or self._of_account.total() >= MOST_AT_ONCE:
            return random.uniform(1.0, 4.0)  # noqa: S311  (jitter)
        return None


class Line(Generic[T]):
    """What waits for the lanes of webhooks, a line each, for a second at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: dict[str, deque[tuple[float, T]]] = {}

    def is_any(self, webhook_id: str) -> bool:
        """Tell whether somebody stands in a webhook's line."""
        return webhook_id in self._lines

    def join(self, webhook_id: str, one: T) -> bool:
        """Stand in line; False if it is too long."""
        line = self._lines.setdefault(webhook_id, deque())
        if len(line) >= MOST_IN_LINE:
            return False
        line.append((self._clock(), one))
        return True

    def first_of(self, webhook_id: str) -> T | None:
        """Return who stands first in a webhook's line."""
        line = self._lines.get(webhook_id)
        return line[0][1] if line else None

    def step_out(self, webhook_id: str) -> None:
        """Take the first out of a webhook's line."""
        line = self._lines[webhook_id]
        line.popleft()
        if not line:
            del self._lines[webhook_id]

    def leave(self, waited_seconds: float = LINE_SECONDS) -> list[T]:
        """Take out all that have waited for so long."""
        until, left = self._clock() - waited_seconds, []
        for webhook_id, line in list(self._lines.items()):
            while line and line[0][0] <= until:
                left.append(line.popleft()[1])
            if not line:
                del self._lines[webhook_id]
        return left
