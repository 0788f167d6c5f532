"""From what a SIP URI's user part says to E.164 numbers it may mean. Every reading says how it was read. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

import phonenumbers
from phonenumbers import shortnumberinfo

_E164 = re.compile(r"[1-9][0-9]{6,14}")
_SEPARATORS = re.compile(r"[-.() ]")
_UNKNOWN_REGION = "ZZ"
_LONGEST_EMERGENCY = 6
_CONTEXT = re.compile(r";phone-context=\+([1-9][-.() 0-9]{0,30})", re.I)
_DIGITS = re.compile(r"[0-9]{3,17}")


class Reading(NamedTuple):
    """One way to read what was dialled."""

    e164: str
    how: str


def clean(user: str) -> str:
    """Return the user part without its parameters, unescaped; what can't be shown (NUL, controls) is replaced."""
    plain = unquote(user.split(";", 1)[0])
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain)


def readings(user: str, countries: Iterable[str] = ()) -> list[Reading]:
    """Return the E.164 numbers that `user` may mean, the likeliest first; none if it is no phone number.

    `+15551234567` is taken as it is, `0015551234567` has its international prefix replaced. Without either it is
    read in its own `phone-context` (RFC 3966), if it names one, as a whole international number and, given countries
    (ISO 3166), as a national one of each; what begins with a 0 can only be national.
    """
    sent = clean(user)
    digits = _SEPARATORS.sub("", sent)
    read = _international(digits) or _local(digits, user, countries)
    return read if digits == sent else [Reading(e164, f"{how}, without its separators") for e164, how in read]


def _international(digits: str) -> list[Reading]:
    for prefix, how in (("+", "as it came"), ("00", "the international prefix 00 read as +")):
        rest = digits.removeprefix(prefix)
        if digits.startswith(prefix) and _E164.fullmatch(rest):
            return [Reading(f"+{rest}", how)]
    return []


def _local(digits: str, user: str, countries: Iterable[str]) -> list[Reading]:
    if not _DIGITS.fullmatch(digits):
        return []
    context = _CONTEXT.search(unquote(user))
    named = [_in_context(digits, _SEPARATORS.sub("", context[1]))] if context else []
    whole = [Reading(f"+{digits}", "+ added")] if _E164.fullmatch(digits) else []
    of_countries = [_national(digits, country, f"a number of {country}, the trunk's country") for country in countries]
    return [reading for reading in (*named, *whole, *of_countries) if reading is not None]


def _in_context(digits: str, context: str) -> Reading | None:
    """Read a number that is valid under a part of the numbering plan: a country, or all that begins with `context`."""
    how = f"read in its phone-context +{context}"
    region = phonenumbers.region_code_for_country_code(int(context))
    if region != _UNKNOWN_REGION:
        return _national(digits, region, how)
    return Reading(f"+{context}{digits}", how) if _E164.fullmatch(context + digits) else None


def calling(user: str, countries: Iterable[str] = ()) -> Reading | None:
    """Return the E.164 number that a caller is most likely to mean; None if it names no phone number.

    There is nothing to try the readings on, so one that somebody may have goes before the first.
    """
    found = readings(user, countries)
    return next((reading for reading in found if _is_assigned(reading.e164)), found[0] if found else None)


def is_emergency(user: str, countries: Iterable[str] = ()) -> bool:
    """Tell whether `user` is an emergency number (911, 112, …) in these countries or, if there are none, anywhere."""
    digits = _SEPARATORS.sub("", clean(user))
    regions = list(countries) or sorted(shortnumberinfo.SUPPORTED_SHORT_REGIONS)
    return len(digits) <= _LONGEST_EMERGENCY and any(
        shortnumberinfo.is_emergency_number(digits, region) for region in regions
    )


def _is_assigned(e164: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(e164))
    except phonenumbers.NumberParseException:
        return False


def national(number: str, country: str) -> str | None:
    """Return the E.164 number that `number` is in a country; None if it is none there."""
    try:
        parsed = phonenumbers.parse(number, country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def _national(digits: str, country: str, how: str) -> Reading | None:
    e164 = national(digits, country)
    return Reading(e164, how) if e164 is not None and _E164.fullmatch(e164[1:]) else None
