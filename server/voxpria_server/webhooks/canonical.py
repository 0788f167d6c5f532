"""JSON exactly as JavaScript writes it: `JSON.stringify(JSON.parse(body))` gives back the bytes of `body`.

The API reference has receivers check a signature over `JSON.stringify` of the parsed body. That only works if
what we send survives the round trip byte for byte, so it is written by ECMA-262's rules in the first place:
numbers are doubles in Number::toString form, integer-like keys come first in ascending order, strings are escaped
as QuoteJSONString does.
"""

import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_LAST_ARRAY_INDEX = 2**32 - 2
_LAST_PLAIN_EXPONENT = 21
_LAST_SMALL_EXPONENT = -6


def dumps(value: object) -> bytes:
    """Return `value` (None, bool, int, float, str, list, tuple, dict with str keys) as JSON bytes.

    Raises ValueError for NaN and infinities, which JSON has not, and TypeError for anything else.
    """
    return "".join(_pieces(value)).encode()


def _pieces(value: object) -> Iterator[str]:
    match value:
        case None:
            yield "null"
        case bool():
            yield "true" if value else "false"
        case str():
            yield _string(value)
        case int():
            yield _integer(value)
        case float():
            yield _double(value)
        case list() | tuple():
            yield from _array(value)
        case dict():
            yield from _object(value)
        case _:
            raise TypeError(f"{type(value).__name__} is not JSON")


def _array(items: list[Any] | tuple[Any, ...]) -> Iterator[str]:
    yield "["
    for position, item in enumerate(items):
        if position:
            yield ","
        yield from _pieces(item)
    yield "]"


def _object(members: dict[str, Any]) -> Iterator[str]:
    yield "{"
    for position, (key, member) in enumerate(_in_order(members)):
        if position:
            yield ","
        yield _string(key)
        yield ":"
        yield from _pieces(member)
    yield "}"


def _in_order(members: dict[str, Any]) -> list[tuple[str, Any]]:
    """Array indices first, ascending, then the rest as they came (ECMA-262 OrdinaryOwnPropertyKeys)."""
    if not all(isinstance(key, str) for key in members):
        raise TypeError("a key that is not a string")
    merged = {_well_paired(key): member for key, member in members.items()}
    indices = sorted((key for key in merged if _is_array_index(key)), key=int)
    rest = (key for key in merged if not _is_array_index(key))
    return [(key, merged[key]) for key in (*indices, *rest)]


def _is_array_index(key: str) -> bool:
    return key.isascii() and _ARRAY_INDEX.fullmatch(key) is not None and int(key) <= _LAST_ARRAY_INDEX


def _string(text: str) -> str:
    return f'"{_NEEDS_ESCAPE.sub(_escape, _well_paired(text))}"'


def _well_paired(text: str) -> str:
    """Join surrogates that stand as a pair: JavaScript's strings are UTF-16, where the two are one character."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"


def _integer(number: int) -> str:
    """Every number is a double in JavaScript; one too great for it is Infinity there, which it writes as null."""
    try:
        return _double(float(number))
    except OverflowError:
        return "null"


def _double(number: float) -> str:
    """Number::toString (ECMA-262 section 6.1.6.1.20), radix 10; Python's repr finds the same shortest digits."""
    if not math.isfinite(number):
        raise ValueError(f"{number} is not JSON")
    if number == 0:
        return "0"
    sign, digit_tuple, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int)
    digits = "".join(map(str, digit_tuple)).rstrip("0")
    point = len(digit_tuple) + exponent
    return ("-" if sign else "") + _placed(digits, point)


def _placed(digits: str, point: int) -> str:
    """Return `digits` with the decimal point after the first `point` of them."""
    if len(digits) <= point <= _LAST_PLAIN_EXPONENT:
        return digits + "0" * (point - len(digits))
    if 0 < point <= _LAST_PLAIN_EXPONENT:
        return f"{digits[:point]}.{digits[point:]}"
    if _LAST_SMALL_EXPONENT < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
