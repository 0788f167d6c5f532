"""Challenges to those who call in by digest, and what is known of a nonce (RFC 7616 section 3.3, RFC 8760)."""

import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from voxpria_routing import digest as digests
from voxpria_routing.digest import ALGORITHMS, Algorithm, Digest

REALM = "VoxPria"
NONCE_SECONDS = 60
_SEAL_LENGTH = 16
"""Hexadecimal digits: 64 bits, to be guessed within a minute. Each byte counts in an answer to who knows whom."""
_MOST_NONCES = 100_000
"""Only nonces that a right password was shown with are remembered, so that nobody else can fill this."""


class Gatekeeper:
    """Nonces carry their own time and seal; only how often a proven one was used is remembered, while it is fresh."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._key = clock, os.urandom(32)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def challenges(self, *, is_stale: bool, room_bytes: int) -> list[str]:
        """Return headers that challenge, one an algorithm, as many as fit into `room_bytes`."""
        nonce = self._nonce(f"{int(self._clock()):08x}{os.urandom(4).hex()}")
        fitting: list[str] = []
        for algorithm in ALGORITHMS:
            header = _challenge(nonce, algorithm, is_stale=is_stale)
            if len(header) > room_bytes:
                break
            room_bytes -= len(header)
            fitting.append(header)
        return fitting

    def read(self, header: str) -> Digest | None:
        """Return the answer in an Authorization header, with what we know of its nonce; None if it is not for us."""
        digest = digests.parse(header)
        if digest is None or digest.realm != REALM:
            return None
        highest = self._counts.get(digest.nonce, 0)
        return msgspec.structs.replace(digest, is_fresh=self._is_fresh(digest.nonce), highest_count=highest)

    def take(self, digest: Digest) -> None:
        """Note that an answer let a call in: neither it nor an earlier one does again."""
        self._counts[digest.nonce] = digest.count
        while len(self._counts) > _MOST_NONCES or (self._counts and not self._is_fresh(next(iter(self._counts)))):
            self._counts.popitem(last=False)

    def _is_fresh(self, nonce: str) -> bool:
        text, seal = nonce[:16], nonce[16:]
        if not hmac.compare_digest(self._nonce(text)[16:].encode(), seal.encode()):
            return False
        return 0 <= self._clock() - int(text[:8], 16) <= NONCE_SECONDS

    def _nonce(self, text: str) -> str:
        return text + hmac.digest(self._key, text.encode(errors="replace"), "sha256").hex()[:_SEAL_LENGTH]


def _challenge(nonce: str, algorithm: Algorithm, *, is_stale: bool) -> str:
    stale = ",stale=true" if is_stale else ""
    return f'WWW-Authenticate: Digest realm="{REALM}",nonce="{nonce}",algorithm={algorithm},qop="auth"{stale}\r\n'
