"""Pauses between tries."""

import random


class Backoff:
    """Growing pauses with jitter, up to a bound; a success starts them anew."""

    def __init__(self, first_seconds: float = 0.2, longest_seconds: float = 5.0) -> None:
        self._first, self._longest = first_seconds, longest_seconds
        self._next = first_seconds

    def next_seconds(self) -> float:
        """Return how long to wait before the next try."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  (jitter)

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._next = self._first
