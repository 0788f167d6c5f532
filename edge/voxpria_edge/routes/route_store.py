"""The routes on this edge's disk: a snapshot, and the deltas that came after it, each line of either sealed.

A crash at any moment leaves a state that was in force: what is half written at the end is left out, and a delta that
does not begin where the state before it ends is one that a newer snapshot holds already.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from voxpria_routing import snapshot
from voxpria_routing.snapshot import Delta, Snapshot
from voxpria_routing.table import Table

_log = structlog.get_logger(__name__)

_NONCE_BYTES = 12
_LENGTH_BYTES = 4
_LONGEST_FRAME_BYTES = 1 << 28
_PURPOSE = b"voxpria edge snapshot"
_LEAST_TO_COMPACT_BYTES = 1 << 20


class RouteStore:
    """Two files; every method does I/O and belongs into a thread."""

    def __init__(self, path: Path, token: str) -> None:
        self._path, self._deltas = path, path.with_suffix(".deltas")
        self._key = AESGCM(HKDF(hashes.SHA256(), 32, None, _PURPOSE).derive(token.encode()))

    def load(self) -> Table:
        """Return the routes on disk; an empty table if there are none that can be read."""
        try:
            table = Table(self._kept_snapshot())
        except FileNotFoundError:
            return Table()
        except (OSError, InvalidTag, ValueError, msgspec.MsgspecError) as error:
            _log.error("the stored snapshot can't be read; waiting for the control plane", error=type(error).__name__)
            return Table()
        for delta in self._kept_deltas():
            if delta.base == table.version:
                table.apply(delta)
        return table

    def put(self, whole: Snapshot) -> None:
        """Keep a snapshot; all that was kept before is in it."""
        unfinished = self._path.with_suffix(".new")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for place, line in enumerate(snapshot.lines(whole)):
                file.write(_framed(self._seal(line, place)))
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(self._path)
        self._deltas.unlink(missing_ok=True)

    def add(self, delta: Delta) -> bool:
        """Keep a delta; True says that it is time to `put` the whole."""
        sealed = self._seal(msgspec.json.encode(delta))
        with os.fdopen(os.open(self._deltas, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as file:
            file.write(_framed(sealed))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        return size > max(_LEAST_TO_COMPACT_BYTES, self._path.stat().st_size // 2)

    def _kept_snapshot(self) -> Snapshot:
        reader = snapshot.Reader()
        with self._path.open("rb") as file:
            for place, sealed in enumerate(_frames(file)):
                reader.take(self._open(sealed, place))
        return reader.snapshot()

    def _kept_deltas(self) -> Iterator[Delta]:
        try:
            with self._deltas.open("rb") as file:
                for sealed in _frames(file):
                    yield msgspec.json.decode(self._open(sealed), type=Delta)
        except FileNotFoundError:
            return
        except (OSError, InvalidTag, ValueError, msgspec.MsgspecError):
            _log.warning("a stored change of the routes is not whole; what came before it is in force")

    def _seal(self, clear: bytes, place: int = 0) -> bytes:
        """Seal a line so that it opens only in its place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._key.encrypt(nonce, clear, _PURPOSE + str(place).encode())

    def _open(self, sealed: bytes, place: int = 0) -> bytes:
        return self._key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _PURPOSE + str(place).encode())


def _framed(sealed: bytes) -> bytes:
    return len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed


def _frames(file: BinaryIO) -> Iterator[bytes]:
    """Give what was framed, one by one; raise ValueError for what is cut off."""
    while length := file.read(_LENGTH_BYTES):
        size = int.from_bytes(length, "big")
        sealed = file.read(size) if size <= _LONGEST_FRAME_BYTES else b""
        if len(sealed) < max(size, _NONCE_BYTES):
            raise ValueError("cut off")
        yield sealed
