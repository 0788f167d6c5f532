"""HEP, version 3 (the Homer Encapsulation Protocol, rev. 36): a SIP message with its time and addresses. Pure."""

import ipaddress
import struct
from dataclasses import dataclass

_PROTOCOL, _SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6 = 2, 3, 4, 5, 6
_UDP = 17
_SOURCE_PORT, _DESTINATION_PORT, _SECONDS, _MICROSECONDS, _PAYLOAD = 7, 8, 9, 10, 15

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A message as it was seen."""

    at: float
    """Seconds since 1970."""
    source: Address
    destination: Address
    payload: bytes
    transport: str = "udp"
    """What IP carried: `udp` or `tcp`."""


def decode(data: bytes) -> Mirrored:
    """Return what a HEP packet holds; raise ValueError for what is none, or lacks what we need."""
    if data[:4] != b"HEP3" or len(data) < 6 or struct.unpack_from(">H", data, 4)[0] != len(data):
        raise ValueError("not HEP3")
    chunks = _chunks(data)
    try:
        seconds, micros = _number(chunks[_SECONDS]), _number(chunks[_MICROSECONDS])
        return Mirrored(
            at=seconds + micros / 1e6,
            source=(_address(chunks, _SOURCE4, _SOURCE6), _number(chunks[_SOURCE_PORT])),
            destination=(_address(chunks, _DESTINATION4, _DESTINATION6), _number(chunks[_DESTINATION_PORT])),
            payload=chunks[_PAYLOAD],
            transport="udp" if _number(chunks[_PROTOCOL]) == _UDP else "tcp",
        )
    except KeyError as error:
        raise ValueError(f"a chunk is missing: {error}") from None


def _chunks(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 6
    while at < len(data):
        if at + 6 > len(data):
            raise ValueError("a chunk is cut off")
        vendor, kind, length = struct.unpack_from(">HHH", data, at)
        if length < 6 or at + length > len(data):
            raise ValueError("a chunk's length is wrong")
        if vendor == 0:
            found[kind] = data[at + 6 : at + length]
        at += length
    return found


def _number(chunk: bytes) -> int:
    return int.from_bytes(chunk, "big")


def _address(chunks: dict[int, bytes], v4: int, v6: int) -> str:
    return str(ipaddress.ip_address(chunks[v4] if v4 in chunks else chunks[v6]))
