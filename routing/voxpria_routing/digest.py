"""Digest answers of those who call in (RFC 7616; in SIP: RFC 3261 section 22, RFC 8760). Pure."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

Algorithm = Literal["MD5", "SHA-256"]
ALGORITHMS: tuple[Algorithm, ...] = ("MD5", "SHA-256")
"""In the order of their challenges. RFC 8760 would have the stronger first, but clients in the field read the first
challenge only, and know no SHA-256."""

_PARAMETER = re.compile(r'\s*([A-Za-z0-9-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)')
_LONGEST = 4096
_NEEDED = ("username", "realm", "nonce", "uri", "response", "nc", "cnonce")


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to a challenge of ours. All of it is the sender's word, but `is_fresh` and `highest_count`."""

    username: str
    realm: str
    nonce: str
    uri: str
    response: str
    algorithm: Algorithm
    count: int
    """`nc`: how often this nonce was used, this time included."""
    cnonce: str
    is_fresh: bool = False
    """Whether the nonce is ours, and not too old."""
    highest_count: int = 0
    """The highest `count` that was taken for this nonce."""

    @property
    def is_replayed(self) -> bool:
        """Whether this answer, or a later one, was taken before."""
        return self.count <= self.highest_count


def parse(header: str) -> Digest | None:
    """Return the answer in an Authorization header; None for anything else, or for one without qop=auth."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest" or len(rest) > _LONGEST:
        return None
    found = _parameters(rest)
    algorithm = found.get("algorithm", "MD5").upper()
    if any(name not in found for name in _NEEDED) or found.get("qop", "").lower() != "auth":
        return None
    if not re.fullmatch(r"[0-9a-fA-F]{8}", found["nc"]):
        return None
    for known in ALGORITHMS:
        if algorithm == known:
            return Digest(
                username=found["username"],
                realm=found["realm"],
                nonce=found["nonce"],
                uri=found["uri"],
                response=found["response"],
                algorithm=known,
                count=int(found["nc"], 16),
                cnonce=found["cnonce"],
            )
    return None


def _parameters(text: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    at = 0
    while match := _PARAMETER.match(text, at):
        name = match[1].lower()
        if name in found:
            return {}
        found[name] = re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        at = match.end()
    return found if at == len(text) else {}


def is_proven(digest: Digest, method: str, password: str) -> bool:
    """Tell whether the answer was made by someone who knows the password.

    Its `uri` is taken as it is: real clients write there what they dialled, not what reached us.
    """
    return hmac.compare_digest(_response(digest, method, password).encode(), digest.response.lower().encode())


def prove(username: str, password: str, method: str) -> Digest:
    """Return the answer that these credentials give to a fresh challenge."""
    unanswered = Digest(
        username=username,
        realm="",
        nonce="",
        uri="",
        response="",
        algorithm="SHA-256",
        count=1,
        cnonce="",
        is_fresh=True,
    )
    return msgspec.structs.replace(unanswered, response=_response(unanswered, method, password))


def _response(digest: Digest, method: str, password: str) -> str:
    """Return the right answer (RFC 7616 section 3.4.1)."""
    ha1 = _hash(digest.algorithm, f"{digest.username}:{digest.realm}:{password}")
    ha2 = _hash(digest.algorithm, f"{method}:{digest.uri}")
    return _hash(digest.algorithm, f"{ha1}:{digest.nonce}:{digest.count:08x}:{digest.cnonce}:auth:{ha2}")


def _hash(algorithm: Algorithm, text: str) -> str:
    data = text.encode(errors="surrogateescape")
    if algorithm == "MD5":
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    return hashlib.sha256(data).hexdigest()
