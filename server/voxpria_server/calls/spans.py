"""A range of time as few pieces that calls are counted in. Pure.

Months, days and hours (UTC) have counts of their own; what is left at the ends of a range are single calls to be read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Level = Literal["month", "day", "hour", "call"]

OF_ALL: tuple[Level, ...] = ("month", "day", "hour")
OF_A_NUMBER: tuple[Level, ...] = ("month", "day")
"""What is counted, coarsest first: of all numbers together, and of each."""

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """Whole months, days or hours, or any stretch of single calls (`call`); `before` is exclusive."""

    level: Level
    since: datetime
    before: datetime


def cut(since: datetime | None, before: datetime | None, levels: Sequence[Level]) -> list[Span]:
    """Return the pieces that make up the range, newest first; None leaves an end open."""
    return list(_cut(since or EARLIEST, before or LATEST, levels, is_open=before is None))


def _cut(since: datetime, before: datetime, levels: Sequence[Level], *, is_open: bool = False) -> Iterator[Span]:
    if since >= before:
        return
    if not levels:
        yield Span("call", since, before)
        return
    level, *finer = levels
    first = _ceil(since, level)
    last = before if is_open else floor(before, level)
    if first is None or first >= last:
        yield from _cut(since, before, finer)
        return
    yield from _cut(last, before, finer)
    yield Span(level, first, last)
    yield from _cut(since, first, finer)


def floor(moment: datetime, level: Level) -> datetime:
    """Return when the month, day or hour of `moment` began."""
    day = moment.replace(minute=0, second=0, microsecond=0)
    match level:
        case "month":
            return day.replace(day=1, hour=0)
        case "day":
            return day.replace(hour=0)
        case _:
            return day


def _ceil(moment: datetime, level: Level) -> datetime | None:
    """Return the first beginning of a month, day or hour that is not before `moment`; None past the last year."""
    begun = floor(moment, level)
    if begun == moment:
        return moment
    steps = {"month": timedelta(days=32), "day": timedelta(days=1), "hour": timedelta(hours=1)}
    try:
        return floor(begun + steps[level], level)
    except OverflowError:
        return None
