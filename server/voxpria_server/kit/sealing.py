"""Secrets at rest: AES-256-GCM, bound to the row they belong to, under a master key that can be rotated.

A sealed value is `key id (4 bytes) | nonce (12) | ciphertext and tag`. The key id is the start of the
key's SHA-256, so a value says by itself which key opens it: new keys go first in the file, old ones stay
below until everything is sealed anew.
"""

import base64
import hashlib
import os
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Depends

from voxpria_server.kit.parts import part

_KEY_BYTES = 32
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12


class SealBrokenError(Exception):
    """A sealed value that no key opens: another key, another row, or changed bytes."""


class Sealer:
    """Seals with the first of its keys and opens with any."""

    def __init__(self, keys: list[bytes]) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys):
            raise ValueError("a master key is 32 bytes")
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._current = _key_id(keys[0])

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return `plaintext` sealed; only `open` with the same `context` (the row's id) gives it back."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._current + nonce + self._keys[self._current].encrypt(nonce, plaintext, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the plaintext; raise SealBrokenError."""
        key = self._keys.get(sealed[:_KEY_ID_BYTES])
        nonce, ciphertext = sealed[_KEY_ID_BYTES:][:_NONCE_BYTES], sealed[_KEY_ID_BYTES + _NONCE_BYTES :]
        if key is None or len(nonce) < _NONCE_BYTES:
            raise SealBrokenError("sealed with a key that is not here")
        try:
            return key.decrypt(nonce, ciphertext, context.encode())
        except InvalidTag:
            raise SealBrokenError("changed, or sealed for another row") from None


SealerPart = Annotated[Sealer, Depends(part("sealer"))]


def load_sealer(path: Path) -> Sealer:
    """Return the sealer of the key file: base64, one key a line, the current one first."""
    return Sealer([base64.b64decode(line, validate=True) for line in path.read_text().split()])


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_ID_BYTES]
