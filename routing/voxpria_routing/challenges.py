"""Answers to digest challenges of others (RFC 8760, RFC 7616): of the servers that we send requests to."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PARAMETER = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
PREFERENCE = ("SHA-256", "MD5")


@dataclass(frozen=True)
class Challenge:
    """What the server wants an answer to."""

    realm: str
    nonce: str
    algorithm: str
    opaque: str | None
    has_qop: bool


def parse_challenge(header: str) -> Challenge | None:
    """Return the challenge in a WWW- or Proxy-Authenticate header; None if it is not one that we can answer."""
    scheme, _, rest = header.strip().partition(" ")
    found = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)}
    qop = {text.strip() for text in found.get("qop", "").split(",")} - {""}
    challenge = Challenge(
        realm=found.get("realm", ""),
        nonce=found.get("nonce", ""),
        algorithm=found.get("algorithm", "MD5").upper(),
        opaque=found.get("opaque"),
        has_qop="auth" in qop,
    )
    is_answerable = scheme.lower() == "digest" and challenge.algorithm in _HASHES and challenge.nonce
    return challenge if is_answerable and (challenge.has_qop or not qop) else None


def best(headers: Iterable[str]) -> Challenge | None:
    """Return the strongest of the challenges in these headers; None if there is none that we can answer."""
    found = [challenge for text in headers if (challenge := parse_challenge(text))]
    return min(found, key=lambda challenge: PREFERENCE.index(challenge.algorithm), default=None)


def answer(
    challenge: Challenge, method: str, uri: str, username: str, password: str, *, cnonce: str | None = None
) -> str:
    """Return the value of the Authorization header."""

    def digest(text: str) -> str:
        return _HASHES[challenge.algorithm](text.encode()).hexdigest()

    ha1, ha2 = digest(f"{username}:{challenge.realm}:{password}"), digest(f"{method}:{uri}")
    cnonce, count = os.urandom(12).hex(), "00000001"
    middle = f"{challenge.nonce}:{count}:{cnonce}:auth" if challenge.has_qop else challenge.nonce
    fields = {"username": username, "realm": challenge.realm, "nonce": challenge.nonce, "uri": uri}
    fields["response"] = digest(f"{ha1}:{middle}:{ha2}")
    if challenge.opaque is not None:
        fields["opaque"] = challenge.opaque
    quoted = ", ".join(f'{name}="{_escape(value)}"' for name, value in fields.items())
    tail = f', qop=auth, nc={count}, cnonce="{cnonce}"' if challenge.has_qop else ""
    return f"Digest {quoted}, algorithm={challenge.algorithm}{tail}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
