"""How many attempts may run at once in this process, so that slow servers hold up their own deliveries only.

An attempt that waits for an answer costs little, so there are many lanes; what is scarce is shared by three bounds:
for a webhook, for an account, and for all. A webhook that was slow to answer, or is right now, gets few.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

MOST_AT_ONCE = 200
MOST_OF_AN_ACCOUNT = 24
MOST_OF_A_WEBHOOK = 8
MOST_OF_A_SLOW_WEBHOOK = 2
SLOW_SECONDS = 2.0
_WAIT_SECONDS = (0.5, 10.0)
_KEPT = 10_000


@dataclass
class _Lane:
    """The attempts to one webhook."""

    running: list[float] = field(default_factory=list)
    """When each began."""
    last_seconds: float = 0.0
    next_turn: float = 0.0

    def most(self, now: float) -> int:
        """Return how many may run at once."""
        is_slow = self.last_seconds >= SLOW_SECONDS or any(now - began >= SLOW_SECONDS for began in self.running)
        return MOST_OF_A_SLOW_WEBHOOK if is_slow else MOST_OF_A_WEBHOOK


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
