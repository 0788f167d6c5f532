"""The SIP messages of calls as objects: one a call, as its edge sent it (gzip of JSON), read and checked here."""

import zlib

import msgspec
import obstore
from obstore.store import ObjectStore
from voxpria_routing.trace import Trace

from voxpria_server.calls.retention import TRACE, path
from voxpria_server.errors import InvalidParameterError

MAX_PACKED_BYTES = 2 * 1024 * 1024
_MAX_BYTES = 16 * 1024 * 1024
_GZIP = 31
"""zlib's word for: with gzip's header."""


class TraceStore:
    """The traces of all calls, by call id."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, call_id: str, packed: bytes) -> None:
        """Store a trace; one that is there is replaced. Raises 400 if it is none, or another call's."""
        try:
            trace = _unpack(packed)
        except ValueError as error:
            raise InvalidParameterError(f"This is no trace: {error}", field="body") from None
        if trace.call_id != call_id:
            raise InvalidParameterError("The trace is of another call.", field="call_id")
        await obstore.put_async(self._store, _path(call_id), packed)

    async def get(self, call_id: str) -> Trace | None:
        """Return a call's trace; None if there is none (not yet, or no longer)."""
        try:
            result = await obstore.get_async(self._store, _path(call_id))
        except FileNotFoundError:
            return None
        return _unpack(bytes(await result.bytes_async()))

    async def delete(self, call_id: str) -> None:
        """Delete a trace; one that is gone is no error."""
        try:
            await obstore.delete_async(self._store, _path(call_id))
        except FileNotFoundError:
            return


def _unpack(packed: bytes) -> Trace:
    """Return the trace in gzipped JSON; raise ValueError for what is none, or too large unpacked."""
    unpacker = zlib.decompressobj(_GZIP)
    try:
        body = unpacker.decompress(packed, _MAX_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("it is cut off, or too large")
    return msgspec.json.decode(body, type=Trace)


def _path(call_id: str) -> str:
    return path(call_id, TRACE)
