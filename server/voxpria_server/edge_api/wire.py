"""From the bytes of an edge's request to checked values. The edge is ours, but its bytes come over a network."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
from fastapi import Request
from voxpria_routing.events import CallEvent, Rejected

from voxpria_server.errors import InvalidParameterError, TooLargeError
from voxpria_server.kit.ids import is_id

T = TypeVar("T")

MAX_EVENTS = 1000
MAX_EVENT_BYTES = 64 * 1024
_MAX_ID_LENGTH = 64


class _RawBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch whose events are not yet decoded, so that a bad one does not take the others with it."""

    edge_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    events: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_EVENTS)]


class _Id(msgspec.Struct, frozen=True):
    id: str


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the request's body; raise 413 payload_too_large as soon as it is."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError(f"This request takes at most {max_bytes} bytes.")
    return bytes(body)


def decode(body: bytes, kind: type[T]) -> T:
    """Return the value in a JSON body; raise 400 invalid_parameter."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidParameterError(str(error), field="body") from None


def decode_batch(body: bytes) -> tuple[list[CallEvent], list[Rejected]]:
    """Return the events of a batch, and the verdicts on those that are none; raise 400 if it is no batch at all."""
    return _sorted_out(decode(body, _RawBatch).events)


def _sorted_out(raws: Sequence[msgspec.Raw]) -> tuple[list[CallEvent], list[Rejected]]:
    good: list[CallEvent] = []
    bad: list[Rejected] = []
    for raw in raws:
        try:
            good.append(_event(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            bad.append(Rejected(id=_id_of(raw), error=str(error)[:300]))
    return good, bad


def _event(raw: msgspec.Raw) -> CallEvent:
    if len(raw) > MAX_EVENT_BYTES:
        raise ValueError("the event is too large")
    event: CallEvent = msgspec.json.decode(raw, type=CallEvent)
    if not 0 < len(event.id) <= _MAX_ID_LENGTH:
        raise ValueError("the event's id is too short or too long")
    if not is_id(event.call_id, "call"):
        raise ValueError("the call's id has not the form of one")
    return event


def _id_of(raw: msgspec.Raw) -> str:
    """Return the id of an event that is otherwise bad; empty if it has none."""
    try:
        return msgspec.json.decode(raw, type=_Id).id[:_MAX_ID_LENGTH]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
