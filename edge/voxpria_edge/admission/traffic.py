"""Counts what the limits are about. This edge's agent is the one who decides, so what is counted is never overshot."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

from voxpria_routing.load import Load

_LONGEST_MEMORY = 10_000
"""Starts that are remembered of each trunk and account: more than any rate that may be configured."""
_SWEEP_EVERY = 10_000
_FORGET_SECONDS = 3600


class Traffic:
    """Open calls and recent starts, by trunk and by account."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._held: dict[str, tuple[str, ...]] = {}
        self._starts: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LONGEST_MEMORY))
        self._since_sweep = 0

    def load(self, down: Mapping[str, str], tried_enough: Collection[str] = frozenset()) -> Load:
        """Return what decisions depend on; it changes with us."""
        return Load(
            now_seconds=self._clock(),
            open_calls=self._open,
            starts=self._starts,
            down=down,
            tried_enough=tried_enough,
        )

    def hold(self, call_id: str, keys: Sequence[str]) -> None:
        """Count an open call under `keys` from now on, and under nothing else; under none when it is over."""
        for key in self._held.pop(call_id, ()):
            self._open[key] -= 1
            if self._open[key] <= 0:
                del self._open[key]
        if keys:
            self._held[call_id] = tuple(keys)
            self._open.update(keys)

    def start(self, keys: Iterable[str]) -> float:
        """Count one call that begins now, and return when that is."""
        now = self._clock()
        for key in keys:
            self._starts[key].append(now)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY:
            self._since_sweep = 0
            for key in [k for k, starts in self._starts.items() if not starts or starts[-1] < now - _FORGET_SECONDS]:
                del self._starts[key]
        return now

    def take_back(self, keys: Iterable[str], began_at: float) -> None:
        """Count a call no more that `start` has counted at `began_at`: it went another way."""
        for key in keys:
            with suppress(ValueError):
                self._starts[key].remove(began_at)
