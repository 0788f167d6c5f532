"""What the status page remembers: of each part, how many minutes of each of the last 90 days it was in which state."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit.clock import utc_now
from voxpria_server.reference import queries
from voxpria_server.reference.models import STATES

DAYS = 90
_MINUTE = timedelta(minutes=1)
_LATE = timedelta(minutes=3)
"""A minute's look that comes no later than this left nothing out."""
_BRIEF_MINUTES = 2
"""So many bad minutes of a day don't colour it: an upgrade takes as long."""


async def record(conn: AsyncConnection, states: Mapping[str, str], at: datetime) -> None:
    """Keep how the parts are in this minute, and how they must have been since the last one that was kept.

    While nobody looked, the workers, who look, were down; of everything else nothing is known.
    """
    last = await queries.last_checks(conn)
    minutes = [(part, at.date(), state, 1) for part, state in states.items()]
    looked_at = [row.checked_at for part, row in last.items() if part in states]
    if looked_at and at - max(looked_at) > _LATE:
        for day, count in _between(max(looked_at) + _MINUTE, at):
            minutes += [(part, day, "down" if part == "Workers" else "unknown", count) for part in states]
    await queries.add_minutes(conn, minutes)
    await queries.delete_days(conn, at.date() - timedelta(days=DAYS - 1))


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
    percent = round(100 * (total["operational"] + total["degraded"]) / known, 3) if known else None
    return {"uptime_percent": percent, "days": days}
