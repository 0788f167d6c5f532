"""Ids that are the same each time they are made from the same thing, so that doing a thing twice is doing it once."""

import uuid
from datetime import datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def record_id(question_id: str, at: datetime) -> str:
    """Return the id of the call that a question opened: sortable by time as UUIDv7 (RFC 9562 section 5.7)."""
    random = uuid.UUID(question_id).int
    milliseconds = int(at.timestamp() * 1000) & (1 << 48) - 1
    return "call_" + _base32(
        milliseconds << 80 | 7 << 76 | (random >> 64 & 0xFFF) << 64 | 2 << 62 | random & (1 << 62) - 1
    )


def half_of_agent(call_id: str) -> str:
    """Return the record, in Kamailio, of the agent that waits until the callee of the call that it places was told."""
    return f"{call_id}.agent"


def call_of_record(record: str) -> str:
    """Return the id of the call that a record of Kamailio's is of: its own, or that of one of its halves."""
    return record.partition(".")[0]


def event_id(call_id: str, kind: str) -> str:
    """Return the id of a call's event, of which there is at most one of each kind."""
    return "evt_" + _base32(uuid.uuid5(uuid.NAMESPACE_OID, f"{call_id}/{kind}").int)


def new_edge_id() -> str:
    """Return an id for an edge that has none."""
    return "edge_" + _base32(uuid.uuid4().int)


def _base32(number: int) -> str:
    """Return 128 bits in 26 characters of Crockford's base32."""
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
