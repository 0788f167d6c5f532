"""Ids: a prefix that names the kind, and 26 lower-case Crockford base32 characters of a UUIDv7 (RFC 9562).

They sort in the order in which they were made, to the millisecond across processes and strictly within one.
"""

import functools
import os
import re
import threading
import time
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_PATTERN = re.compile(rf"[a-z]+_[{_ALPHABET}]{{26}}")
_GIVEN = re.compile(rf"[a-z]+_[0-7][{_ALPHABET}]{{9}}[ef][{_ALPHABET}]{{2}}[89abrstv][{_ALPHABET}]{{12}}")
"""The 11th character holds a UUID's version, the 14th its variant."""
_LENGTH = 26
_RANDOM_BITS = 74
_LOW = (1 << 62) - 1
_VERSION, _VARIANT = 0x7, 0b10
_lock = threading.Lock()
_last = (0, 0)


def new_id(prefix: str) -> str:
    """Return a new id such as `call_06a3…`."""
    milliseconds, random = _tick()
    high, low = random >> 62, random & _LOW
    number = milliseconds << 80 | _VERSION << 76 | high << 64 | _VARIANT << 62 | low
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def is_id(text: str, prefix: str) -> bool:
    """Tell whether `text` has the form of an id of that kind."""
    return text.startswith(f"{prefix}_") and _PATTERN.fullmatch(text) is not None


def may_be_given(text: str, prefix: str) -> bool:
    """Tell whether `new_id` may have given that id: it is a UUIDv7, as not every text of an id's form is."""
    return text.startswith(f"{prefix}_") and _GIVEN.fullmatch(text) is not None


def has_form(text: str) -> bool:
    """Tell whether `text` has the form of an id, of whatever kind."""
    return _PATTERN.fullmatch(text) is not None


def made_at(text: str) -> datetime:
    """Return when an id was made, to the millisecond; of an id that is cut short, the first moment it may be from."""
    digits = text.partition("_")[2].ljust(_LENGTH, _ALPHABET[0])
    number = functools.reduce(lambda value, digit: value << 5 | _ALPHABET.index(digit), digits, 0)
    return datetime.fromtimestamp((number >> 80) / 1000, UTC)


def _tick() -> tuple[int, int]:
    """Return a (millisecond, random) pair later than every one before; a clock set back does not matter."""
    global _last  # noqa: PLW0603  (the process's one source of ids)
    now = (time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big") >> 6)
    with _lock:
        if now[0] <= _last[0]:
            millisecond, random = _last
            now = (millisecond, random + 1) if random + 1 < 1 << _RANDOM_BITS else (millisecond + 1, 0)
        _last = now
        return now
