"""The time, always UTC and timezone-aware."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Return `moment` as `YYYY-MM-DDTHH:MM:SSZ`, cut to the second; a naive time raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{utc.isoformat(timespec='seconds')[:19]}Z"
