"""Digest authentication (RFC 7616 in SIP: RFC 8760), both sides; qop is always `auth`."""

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from voxpria_sip.uri import MalformedError, split

Algorithm = Literal["MD5", "SHA-256"]
Verdict = Literal["granted", "absent", "stale", "wrong"]
ALGORITHMS: tuple[Algorithm, ...] = ("MD5", "SHA-256")
"""In the order of their challenges. RFC 8760 would have the stronger first, but clients in the field (SIPp among them)
read the first challenge only, and know no SHA-256."""
NONCE_SECONDS = 60

_HASHES: dict[str, Callable[[bytes], "hashlib._Hash"]] = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_PARAMETER = re.compile(r'([A-Za-z-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_MAX_PARAMETERS = 20


@dataclass(frozen=True)
class Credentials:
    """A user's name and password."""

    username: str
    password: str = field(repr=False)

    def secrets(self, realm: str) -> "Secrets":
        """Return what a server keeps to check them in one realm."""
        return Secrets(self.username, {name: ha1(name, self.username, realm, self.password) for name in ALGORITHMS})


@dataclass(frozen=True)
class Secrets:
    """A user's name and the H(A1) of name, realm and password for each algorithm."""

    username: str
    ha1: Mapping[str, str] = field(repr=False)


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """Return H(A1) (RFC 7616 section 3.4.2)."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def response_value(algorithm: str, ha1_value: str, method: str, params: Mapping[str, str]) -> str:
    """Return the `response` that proves H(A1) for this method and these parameters (RFC 7616 section 3.4.1)."""
    ha2 = _hash(algorithm, f"{method}:{params['uri']}")
    middle = [params["nonce"]]
    if "qop" in params:
        middle += [params["nc"], params["cnonce"], params["qop"]]
    return _hash(algorithm, ":".join([ha1_value, *middle, ha2]))


def parse_parameters(header: str) -> dict[str, str]:
    """Return the parameters of a challenge or an answer, names in lower case; raise MalformedError."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest" or not rest.strip():
        raise MalformedError("not Digest")
    found: dict[str, str] = {}
    for part in split(rest)[: _MAX_PARAMETERS + 1]:
        pair = _PARAMETER.fullmatch(part)
        if pair is None or pair[1].lower() in found or len(found) == _MAX_PARAMETERS:
            raise MalformedError("malformed Digest")
        found[pair[1].lower()] = re.sub(r"\\(.)", r"\1", pair[2]) if pair[2] is not None else pair[3]
    return found


def answer(headers: Iterable[str], credentials: Credentials, method: str, uri: str) -> str | None:
    """Return the answer to the first challenge that can be answered; None if there is none."""
    for header in headers:
        try:
            challenge = parse_parameters(header)
        except MalformedError:
            continue
        algorithm = challenge.get("algorithm", "MD5").upper()
        if algorithm in _HASHES and {"realm", "nonce"} <= challenge.keys():
            return _answer(challenge, algorithm, credentials, method, uri)
    return None


def _answer(challenge: Mapping[str, str], algorithm: str, credentials: Credentials, method: str, uri: str) -> str:
    params = {"username": credentials.username, "realm": challenge["realm"], "nonce": challenge["nonce"], "uri": uri}
    if "auth" in [text.strip() for text in challenge.get("qop", "").split(",")]:
        params |= {"qop": "auth", "nc": "00000001", "cnonce": os.urandom(8).hex()}
    secret = ha1(algorithm, credentials.username, challenge["realm"], credentials.password)
    params["response"] = response_value(algorithm, secret, method, params)
    params["algorithm"] = algorithm
    if "opaque" in challenge:
        params["opaque"] = challenge["opaque"]
    bare = {"qop", "nc", "algorithm"}
    return "Digest " + ", ".join(f"{n}={v}" if n in bare else f"{n}={_quote(v)}" for n, v in params.items())


class Gatekeeper:
    """The server's side. Nonces carry their own time and seal, so that none need be remembered."""

    def __init__(self, algorithms: tuple[Algorithm, ...] = ALGORITHMS, clock: Callable[[], float] = time.time) -> None:
        self._algorithms, self._clock, self._key = algorithms, clock, os.urandom(32)

    def challenges(self, realm: str, *, is_stale: bool = False) -> list[str]:
        """Return the values of WWW-Authenticate, one an algorithm (RFC 8760 section 2.3)."""
        nonce = self._nonce(f"{int(self._clock()):x}.{os.urandom(8).hex()}", realm)
        stale = ", stale=true" if is_stale else ""
        return [
            f'Digest realm={_quote(realm)}, nonce="{nonce}", algorithm={name}, qop="auth"{stale}'
            for name in self._algorithms
        ]

    def judge(self, header: str | None, method: str, realm: str, users: Iterable[Secrets]) -> Verdict:
        """Judge an Authorization header. Its `uri` is taken as it is: real clients write what they dialled there."""
        if header is None:
            return "absent"
        try:
            params = parse_parameters(header)
        except MalformedError:
            return "wrong"
        if not self._is_proven(params, method, realm, users):
            return "wrong"
        return "granted" if self._is_fresh(params["nonce"], realm) else "stale"

    def _is_proven(self, params: Mapping[str, str], method: str, realm: str, users: Iterable[Secrets]) -> bool:
        algorithm = params.get("algorithm", "MD5").upper()
        needed = {"username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"}
        if not needed <= params.keys() or algorithm not in self._algorithms:
            return False
        if params["qop"] != "auth" or params["realm"] != realm:
            return False
        known = [user.ha1[algorithm] for user in users if user.username == params["username"]]
        given = params["response"].lower().encode()
        return any(
            hmac.compare_digest(response_value(algorithm, secret, method, params).encode(), given) for secret in known
        )

    def _is_fresh(self, nonce: str, realm: str) -> bool:
        text, _, _ = nonce.rpartition(".")
        if not hmac.compare_digest(self._nonce(text, realm).encode(), nonce.encode()):
            return False
        return self._clock() - int(text.partition(".")[0], 16) <= NONCE_SECONDS

    def _nonce(self, text: str, realm: str) -> str:
        seal = hmac.digest(self._key, f"{text}:{realm}".encode(), "sha256").hex()[:32]
        return f"{text}.{seal}"


def _hash(algorithm: str, text: str) -> str:
    return _HASHES[algorithm](text.encode()).hexdigest()


def _quote(text: str) -> str:
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'
