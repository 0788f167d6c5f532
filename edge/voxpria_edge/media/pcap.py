"""UDP datagrams out of a pcap file (libpcap's classic format), one by one, whatever state the file is in."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
_ETHERNET = 1
_LONGEST_PACKET_BYTES = 65535 + 14
_IPV4, _IPV6, _UDP = b"\x08\x00", b"\x86\xdd", 17


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram: when it was captured (seconds since 1970), to which port, and what it held."""

    at: float
    port: int
    payload: bytes


class Capture:
    """A capture that may still be written. What is cut off or corrupt ends where it stops making sense."""

    def __init__(self, path: Path) -> None:
        """Open it; raise OSError."""
        self._file = path.open("rb")
        self._record: struct.Struct | None = None
        self._unit = 0.0
        self._is_broken = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def new(self) -> Iterator[Datagram]:
        """Yield the UDP datagrams that have come since the last time, in order."""
        if self._record is None:
            self._read_header()
        while self._record is not None and not self._is_broken:
            start = self._file.tell()
            frame, at = self._next(self._record)
            if frame is None:
                self._file.seek(start)
                return
            if (udp := _udp_of(frame)) is not None:
                yield Datagram(at, struct.unpack_from(">H", udp, 2)[0], udp[8:])

    def _read_header(self) -> None:
        header = self._file.read(24)
        if len(header) < 24:
            self._file.seek(0)
            return
        if header[:4] in _MAGICS:
            order, self._unit = _MAGICS[header[:4]]
            if struct.unpack_from(f"{order}I", header, 20)[0] == _ETHERNET:
                self._record = struct.Struct(f"{order}IIII")
                return
        self._is_broken = True

    def _next(self, record: struct.Struct) -> tuple[bytes | None, float]:
        """Return the next whole frame and its time; None where there is none, yet or ever."""
        header = self._file.read(record.size)
        if len(header) < record.size:
            return None, 0.0
        seconds, fraction, length, _original = record.unpack(header)
        self._is_broken = length > _LONGEST_PACKET_BYTES
        frame = b"" if self._is_broken else self._file.read(length)
        return (frame if len(frame) == length else None), seconds + fraction * self._unit


def _udp_of(frame: bytes) -> bytes | None:
    """Return the UDP header and payload in an Ethernet frame, or None."""
    kind, packet = frame[12:14], frame[14:]
    if kind == _IPV4 and len(packet) >= 20 and packet[9] == _UDP:
        udp = packet[(packet[0] & 0x0F) * 4 :]
    elif kind == _IPV6 and len(packet) >= 40 and packet[6] == _UDP:
        udp = packet[40:]
    else:
        return None
    return udp if len(udp) >= 8 else None
