"""Refused calls that belong to no account: there is no record of them, so the log says what came, a few a second."""

import time
from collections.abc import Callable

import structlog
from voxpria_routing.decide import Decision

_log = structlog.get_logger(__name__)

_LINES_A_SECOND = 10
"""Anybody may send what ends here, as fast as the guard in front lets them."""


class Strangers:
    """Tells the operator of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second, self._lines, self._untold = 0, 0, 0

    def note(self, source: str, transport: str, decision: Decision) -> None:
        """Write a line, or with too many in this second only count it, for the first line of a later one."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= _LINES_A_SECOND:
            self._untold += 1
            return
        self._lines += 1
        _log.info(
            "refused a call that is nobody's",
            source=source,
            transport=transport,
            called=decision.called[:64],
            why=decision.explanation.summary,
            tried=list(decision.explanation.tried),
            not_told_of_before=self._untold,
        )
        self._untold = 0
