"""What the status page remembers: of each part, how many minutes of each of the last 90 days it was in which state."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit.clock import utc_now
from voxpria_server.reference import queries
from voxpria_server.reference.models import STATES

DAYS = 90
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_LATE = timedelta(minutes=3)
"""A minute's look that comes no later than this left nothing out."""
_BRIEF_MINUTES = 2
"""So many bad minutes of a day don't colour it: an upgrade takes as long."""


async def record(
    conn: AsyncConnection,
    states: Mapping[str, str],
    minute: datetime,
    untold: Mapping[datetime, Mapping[str, str]] | None = None,
) -> None:
    """Keep how the parts are in this minute, unless it is kept; and what was found in minutes since the last one kept.

    `untold`: what was found of all parts, by the minute, while it could not be kept. Of others nothing is known.
    """
    await queries.lock_history(conn)
    last = await last_minute(conn)
    if minute <= last:
        return
    found = {at: of for at, of in (untold or {}).items() if last < at < minute} | {minute: states}
    counts = Counter((part, at.date(), state) for at, of in found.items() for part, state in of.items())
    if last != NEVER and minute - last > _LATE:
        seen = Counter(at.date() for at in found if at != minute)
        for day, count in _between(last + _MINUTE, minute):
            counts.update({(part, day, "unknown"): count - seen[day] for part in states})
    await queries.add_minutes(conn, ((*what, count) for what, count in counts.items() if count > 0))
    await queries.put_checks(conn, states, minute)
    await queries.delete_days(conn, minute.date() - timedelta(days=DAYS - 1))


async def last_minute(conn: AsyncConnection) -> datetime:
    """Return the last minute that is kept; `NEVER` if there is none."""
    last = await queries.last_checks(conn)
    return minute_of(max((row.checked_at for row in last.values()), default=NEVER))


def minute_of(moment: datetime) -> datetime:
    """Return the beginning of its minute."""
    return moment.replace(second=0, microsecond=0)


async def read(conn: AsyncConnection, parts: Sequence[str]) -> dict[str, Any]:
    """Return each part's last 90 days, oldest first, and the share of the known time in which it worked."""
    today = utc_now().date()
    kept = {(row.part, row.day): row for row in await queries.days(conn, today - timedelta(days=DAYS - 1))}
    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    return {part: _history([_day(day, _minutes(kept.get((part, day)))) for day in days]) for part in parts}


def colour(minutes: Mapping[str, int]) -> str:
    """Return the state that a day is shown in: the worst that lasted."""
    if minutes["down"] > _BRIEF_MINUTES:
        return "down"
    if minutes["degraded"] + minutes["down"] > _BRIEF_MINUTES:
        return "degraded"
    return "operational" if sum(minutes.values()) > minutes["unknown"] else "unknown"


def _between(begin: datetime, end: datetime) -> Iterator[tuple[date, int]]:
    """Yield how many minutes of each day lie between two times; of the last 90 days only."""
    begin = max(begin, end - timedelta(days=DAYS))
    while begin < end:
        midnight = datetime.combine(begin.date() + timedelta(days=1), datetime.min.time(), begin.tzinfo)
        until = min(midnight, end)
        if count := round((until - begin) / _MINUTE):
            yield begin.date(), count
        begin = until


def _minutes(row: Any) -> dict[str, int]:  # noqa: ANN401  (a row, or none)
    return {state: getattr(row, state) if row is not None else 0 for state in STATES}


def _day(day: date, minutes: Mapping[str, int]) -> dict[str, Any]:
    return {"date": day.isoformat(), "status": colour(minutes), "minutes": dict(minutes)}


def _history(days: list[dict[str, Any]]) -> dict[str, Any]:
    total = {state: sum(day["minutes"][state] for day in days) for state in STATES}
    known = total["operational"] + total["degraded"] + total["down"]
    percent = (known - total["down"]) * 100_000 // known / 1000 if known else None  # 100 is said of nothing less
    return {"uptime_percent": percent, "days": days}
