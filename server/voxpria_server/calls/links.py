"""Links to recordings: they work without a key, for a while, for one call. Pure.

`<public url>/v1/recordings/<call id>.mp3?expires=<unix seconds>&signature=<hex>`; the signature is an
HMAC-SHA256 under a key derived (HKDF, RFC 5869) from the master key, so that no other use of that key meets it.
"""

import base64
import hashlib
import hmac
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from voxpria_server.errors import ForbiddenError

_KEY_BYTES = 32
_PURPOSE = b"voxpria recording links"


class RecordingLinks:
    """Makes links with the first of the keys, and takes those of any."""

    def __init__(self, keys: list[bytes], public_url: str, lifetime_seconds: int) -> None:
        self._keys, self._public_url, self._lifetime_seconds = keys, public_url, lifetime_seconds

    def make(self, call_id: str, now: datetime) -> str:
        """Return a link that works from `now` on for the set time."""
        expires = int(now.timestamp()) + self._lifetime_seconds
        signature = _sign(self._keys[0], call_id, expires)
        return f"{self._public_url}/v1/recordings/{call_id}.mp3?expires={expires}&signature={signature}"

    def of(self, call_id: str, *, status: str, recording: str, now: datetime) -> str | None:
        """Return a link to a call's recording once the call is over, unless there will be none."""
        is_coming = status != "in-progress" and recording in {"announced", "ready"}
        return self.make(call_id, now) if is_coming else None

    def check(self, call_id: str, expires: int, signature: str, now: datetime) -> None:
        """Raise 403 invalid_signature or link_expired unless the link is ours and still works."""
        if not any(_is_same(_sign(key, call_id, expires), signature) for key in self._keys):
            raise ForbiddenError("The signature of this link is not valid.", code="invalid_signature")
        if expires < now.timestamp():
            raise ForbiddenError("This link has expired; get the call again for a new one.", code="link_expired")


def load_links(master_key_file: Path, public_url: str, lifetime_seconds: int) -> RecordingLinks:
    """Return the links under the master keys in the file: base64, one a line, the current one first."""
    masters = [base64.b64decode(line, validate=True) for line in master_key_file.read_text().split()]
    return RecordingLinks([_derive(master) for master in masters], public_url, lifetime_seconds)


def _derive(master: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=_KEY_BYTES, salt=None, info=_PURPOSE).derive(master)


def _sign(key: bytes, call_id: str, expires: int) -> str:
    return hmac.digest(key, f"{call_id} {expires}".encode(), hashlib.sha256).hex()


def _is_same(expected: str, given: str) -> bool:
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
