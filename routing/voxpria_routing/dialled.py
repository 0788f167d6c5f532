"""From what a SIP URI's user part says to E.164 numbers it may mean. Every reading says how it was read. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

import phonenumbers

_E164 = re.compile(r"[1-9][0-9]{6,14}")
_DIGITS = re.compile(r"[0-9]{3,17}")


class Reading(NamedTuple):
    """One way to read what was dialled."""

    e164: str
    how: str


def clean(user: str) -> str:
    """Return the user part without its parameters, unescaped."""
    return unquote(user).split(";", 1)[0]


def readings(user: str, countries: Iterable[str] = ()) -> list[Reading]:
    """Return the E.164 numbers that `user` may mean, the likeliest first; none if it is no phone number.

    `+15551234567` is taken as it is, `0015551234567` has its international prefix replaced. Without either it is
    read as a whole international number and, given countries (ISO 3166), as a national one of each; what begins
    with a 0 can only be national.
    """
    digits = re.sub(r"[-.() ]", "", clean(user))
    for prefix, how in (("+", "as it came"), ("00", "the international prefix 00 read as +")):
        rest = digits.removeprefix(prefix)
        if digits.startswith(prefix) and _E164.fullmatch(rest):
            return [Reading(f"+{rest}", how)]
    if not _DIGITS.fullmatch(digits):
        return []
    whole = [Reading(f"+{digits}", "+ added")] if _E164.fullmatch(digits) else []
    return whole + [reading for country in countries if (reading := _national(digits, country))]


def national(number: str, country: str) -> str | None:
    """Return the E.164 number that `number` is in a country; None if it is none there."""
    try:
        parsed = phonenumbers.parse(number, country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def _national(digits: str, country: str) -> Reading | None:
    e164 = national(digits, country)
    if e164 is None or not _E164.fullmatch(e164[1:]):
        return None
    return Reading(e164, f"a number of {country}, the trunk's country")
