"""RTP packets (RFC 3550 section 5.1)."""

import struct
from dataclasses import dataclass

from voxpria_sip.uri import MalformedError

_HEADER = struct.Struct("!BBHII")
MAX_BYTES = 2048


@dataclass(frozen=True)
class Packet:
    """One packet; padding, contributors and extension are dropped when parsed."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    is_marked: bool = False

    def __bytes__(self) -> bytes:
        second = self.payload_type | (0x80 if self.is_marked else 0)
        return _HEADER.pack(0x80, second, self.sequence, self.timestamp, self.ssrc) + self.payload


def parse(data: bytes) -> Packet:
    """Return the packet; raise MalformedError."""
    if not _HEADER.size <= len(data) <= MAX_BYTES or data[0] >> 6 != 2:
        raise MalformedError("not RTP")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    start = _HEADER.size + 4 * (first & 0x0F)
    if first & 0x10:
        if len(data) < start + 4:
            raise MalformedError("the extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
    end = len(data) - (data[-1] if first & 0x20 else 0)
    if start > end:
        raise MalformedError("the packet is shorter than it says")
    return Packet(second & 0x7F, sequence, timestamp, ssrc, data[start:end], bool(second & 0x80))
