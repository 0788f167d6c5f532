"""Answers to the challenges of trunks' servers (RFC 8760): Kamailio knows MD5 only, and is told no password. Pure."""

import re
from collections.abc import Mapping

from voxpria_routing import challenges
from voxpria_routing.snapshot import Trunk

Headers = Mapping[str, tuple[str, ...]]
"""By name, in small letters."""

_CHALLENGES = {401: ("www-authenticate", "Authorization"), 407: ("proxy-authenticate", "Proxy-Authorization")}
_SHORT = {"m": "contact"}
_LONGEST_HEADER = 2048


def headers_of(message: str) -> Headers:
    """Return the headers of a SIP message."""
    lines = re.sub(r"\r\n[ \t]+", " ", message.partition("\r\n\r\n")[0]).split("\r\n")[1:]
    headers: dict[str, tuple[str, ...]] = {}
    for line in lines:
        name, _, value = line[:_LONGEST_HEADER].partition(":")
        name = name.strip().lower()
        name = _SHORT.get(name, name)
        headers[name] = (*headers.get(name, ()), value.strip())
    return headers


def authorization(trunk: Trunk, method: str, uri: str, code: int, asked: Headers) -> str | None:
    """Return the header line that answers a challenge, if it is one and the trunk can answer it."""
    if code not in _CHALLENGES or trunk.username is None or trunk.password is None:
        return None
    asks, answers = _CHALLENGES[code]
    found = challenges.best(asked.get(asks, ()))
    if found is None:
        return None
    return f"{answers}: {challenges.answer(found, method, uri, trunk.username, trunk.password)}\r\n"
