"""What has been met lately, so that it counts once though it comes again."""

import time
from collections import OrderedDict
from collections.abc import Callable

_MOST = 10_000


class Lately:
    """Remembers keys for a while, and so many at most: the oldest go first."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._until: OrderedDict[str, float] = OrderedDict()

    def is_new(self, key: str) -> bool:
        """Tell whether a key is met for the first time in this while, which begins then."""
        if key in self:
            return False
        while len(self._until) >= _MOST:
            self._until.popitem(last=False)
        self._until[key] = self._clock() + self._seconds
        return True

    def __contains__(self, key: str) -> bool:
        """Tell whether a key has been met lately."""
        now = self._clock()
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)
        return key in self._until
