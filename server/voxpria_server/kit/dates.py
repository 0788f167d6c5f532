"""Dates that callers of the API write: an ISO 8601 date, or a time that is UTC unless it says otherwise."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_NOT_A_DATE = "an ISO 8601 date (2024-01-15) or time (2024-01-15T10:30:00Z)"


def _start(value: object) -> datetime:
    moment, _ = _read(value)
    return moment


def _end(value: object) -> datetime:
    """Return the first moment that is not included: all of the day or the second that `value` names is.

    Times are shown to the second, so whoever asks up to a call's `started_at` means that call too.
    """
    moment, length = _read(value)
    try:
        return moment + length
    except OverflowError:
        return moment


def _read(value: object) -> tuple[datetime, timedelta]:
    """Return the time that `value` begins at, and how long what it names is; raise ValueError for what is no text."""
    if not isinstance(value, str):
        raise ValueError(_NOT_A_DATE)  # noqa: TRY004  (what Pydantic takes for a verdict)
    try:
        day = date.fromisoformat(value)
    except ValueError:
        moment = _moment(value)
        return moment, timedelta(microseconds=1) if moment.microsecond else timedelta(seconds=1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC), timedelta(days=1)


def _moment(value: str) -> datetime:
    if "T" in value:
        value = value.replace(" ", "+")  # of an offset, not percent-encoded
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(_NOT_A_DATE) from None


_DATE_OR_TIME: dict[str, Any] = {"anyOf": [{"type": "string", "format": each} for each in ("date", "date-time")]}
StartDate = Annotated[
    datetime,
    BeforeValidator(_start),
    WithJsonSchema(_DATE_OR_TIME | {"description": "ISO 8601 date or time (UTC unless it says otherwise)."}),
]
EndDate = Annotated[
    datetime,
    BeforeValidator(_end),
    WithJsonSchema(_DATE_OR_TIME | {"description": "ISO 8601 date or time, that whole day or second included."}),
]
