"""Recordings as objects: a local folder or an object store, written whole or not at all."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import sqlalchemy as sa
from obstore.store import LocalStore, ObjectStore, from_url
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.calls import queries
from voxpria_server.calls.retention import RECORDING, path
from voxpria_server.errors import InvalidParameterError, NotFoundError, TooLargeError
from voxpria_server.kit.db import Database

CHANNEL = "voxpria_recordings"
_RECHECK_SECONDS = 5.0
_CHUNK_BYTES = 256 * 1024


class RecordingStore:
    """The recordings of all calls, by call id."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self._store, self._max_bytes = store, max_bytes

    async def put(self, call_id: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a recording; one that is there is replaced. Raises 400 if it is empty, 413 if it is too large."""
        await obstore.put_async(self._store, _path(call_id), self._bounded(chunks))

    async def size(self, call_id: str) -> int | None:
        """Return the recording's size in bytes; None if it is not there."""
        try:
            meta = await obstore.head_async(self._store, _path(call_id))
        except FileNotFoundError:
            return None
        return int(meta["size"])

    async def read(self, call_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Give the bytes from `start` up to, not including, `end`."""
        result = await obstore.get_async(self._store, _path(call_id), options={"range": (start, end)})
        async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
            yield bytes(chunk)

    async def delete(self, call_id: str) -> None:
        """Delete a recording; one that is gone is no error."""
        try:
            await obstore.delete_async(self._store, _path(call_id))
        except FileNotFoundError:
            return

    async def _bounded(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pass the chunks on; what is raised here breaks the upload off, and nothing of it remains."""
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self._max_bytes:
                raise TooLargeError(f"A recording has at most {self._max_bytes} bytes.")
            if chunk:
                yield chunk
        if size == 0:
            raise InvalidParameterError("The recording is empty.", field="body")


def open_store(url: str, folder: Path) -> ObjectStore:
    """Return the store at `url`, or without one that in `folder`, which is made."""
    return from_url(url) if url else LocalStore(prefix=folder, mkdir=True)


async def announce(conn: AsyncConnection) -> None:
    """Wake those who wait for a recording, at commit."""
    await conn.execute(sa.text(f"SELECT pg_notify('{CHANNEL}', '')"))


async def wait_for(database: Database, store: RecordingStore, call_id: str, timeout_seconds: float) -> int:
    """Return the size of a call's recording, waiting for it if it is on its way. Raises 404 recording_not_found."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    with database.listener.ear(CHANNEL) as ear:
        while True:
            async with database.read() as conn:
                state = await queries.recording_state_of_link(conn, call_id)
            if (size := await store.size(call_id)) is not None:
                return size
            left = database.listener.seconds_left(deadline)
            if state != "announced" or left <= 0:
                raise _not_found(state)
            await ear.wait(min(left, _RECHECK_SECONDS))


def _not_found(state: str | None) -> NotFoundError:
    messages = {
        "announced": "The recording has not arrived yet; try again shortly.",
        "failed": "The call's recording failed.",
        "ready": "The recording is no longer kept.",
        "deleted": "The recording is no longer kept.",
    }
    text = messages.get(state or "", "This call has no recording.")
    return NotFoundError(text, code="recording_not_found", details={"recording": state or "none"})


def _path(call_id: str) -> str:
    return path(call_id, RECORDING)
