"""Refused calls that belong to no account, for the operator: a few lines a second, and sums for the control plane.

Anybody may send what ends here, as fast as the guard in front lets them, and write into it what they like.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec
import structlog
from voxpria_routing.decision import Cause, Decision, Reject
from voxpria_routing.edge_api import MOST_REFUSED, OTHERS, Refused
from voxpria_routing.edge_api import Strangers as News

from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.backoff import Backoff

_log = structlog.get_logger(__name__)

_LINES_A_SECOND = 10
_EVERY_SECONDS = 5.0
_LONGEST_NUMBER, _LONGEST_SENTENCE = 64, 500


class Strangers:
    """Tells of them, and remembers of each source and cause how many there were and the last one, until it is told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._second, self._lines, self._untold = 0, 0, 0
        self._sums: dict[tuple[str, str], Refused] = {}

    def note(self, source: str, transport: str, decision: Decision) -> None:
        """Count a call from `source` (`address:port`); write a line, unless this second has too many of them."""
        if isinstance(decision, Reject):
            self._add([_refused(source, transport, decision)])
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
            called=decision.called[:_LONGEST_NUMBER],
            why=decision.explanation.summary,
            tried=list(decision.explanation.tried),
            not_told_of_before=self._untold,
        )
        self._untold = 0

    def take(self) -> tuple[Refused, ...]:
        """Return what has not been told yet, and forget it."""
        sums, self._sums = self._sums, {}
        return tuple(sums.values())

    async def tell(self, edge_id: str, control_plane: ControlPlane) -> None:
        """Tell the control plane, until cancelled. What it does not take is told with what comes after."""
        backoff = Backoff(longest_seconds=30)
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            refused = self.take()
            if not refused:
                continue
            try:
                await control_plane.tell(News(edge_id=edge_id, refused=refused))
            except ControlPlaneError as error:
                _log.warning("refused calls not told", error=str(error))
                newer = self.take()
                self._add([*refused, *newer])
                await asyncio.sleep(backoff.next_seconds())
            else:
                backoff.reset()

    def _add(self, more: Iterable[Refused]) -> None:
        for one in more:
            key = (one.source, one.cause)
            if key not in self._sums and len(self._sums) >= MOST_REFUSED - len(Cause):
                one, key = msgspec.structs.replace(one, source=OTHERS), (OTHERS, one.cause)  # noqa: PLW2901  (the one)
            before = self._sums.get(key)
            self._sums[key] = one.after(before)


def _refused(source: str, transport: str, decision: Reject) -> Refused:
    now, why = datetime.now(UTC), decision.explanation
    return Refused(
        source=source.rpartition(":")[0].strip("[]"),
        cause=decision.cause,
        count=1,
        first_at=now,
        last_at=now,
        transport=transport,
        called=_clean(decision.called, _LONGEST_NUMBER),
        why=_clean(why.summary, _LONGEST_SENTENCE),
        nearest=_clean(why.nearest, _LONGEST_SENTENCE) if why.nearest else None,
        mend=_clean(why.mend, _LONGEST_SENTENCE) if why.mend else None,
    )


def _clean(text: str, longest: int) -> str:
    """Return what JSON and a database take of a text that a stranger had a hand in."""
    return text[:longest].encode("utf-8", "replace").decode().replace("\x00", "")
