"""RTP packets (RFC 3550 section 5.1), and what a stream of them tells: loss and jitter."""

import struct
from dataclasses import dataclass

_SEQUENCE_MODULO = 1 << 16
_TIMESTAMP_MODULO = 1 << 32
_MAX_DROPOUT = 3000
"""A larger leap of the sequence number is a new start, not a loss (RFC 3550 appendix A.1)."""

_LEAP_SECONDS = 1.0
"""A packet later or earlier than this against its timestamp is no jitter: its sender's clock stood still, or leapt."""


@dataclass(frozen=True, slots=True)
class Packet:
    """An RTP packet."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


def parse(data: bytes) -> Packet | None:
    """Return the RTP packet in `data`, or None when it is something else (RTCP, RFC 5761 section 4, or noise)."""
    if len(data) < 12 or data[0] >> 6 != 2 or 192 <= data[1] <= 223:
        return None
    _flags, _type, sequence, timestamp, ssrc = struct.unpack_from(">BBHII", data)
    start = 12 + 4 * (data[0] & 0x0F)
    if data[0] & 0x10:  # header extension, section 5.3.1
        if len(data) < start + 4:
            return None
        start += 4 + 4 * struct.unpack_from(">H", data, start + 2)[0]
    padding = data[-1] if data[0] & 0x20 else 0
    end = len(data) - padding
    return Packet(data[1] & 0x7F, sequence, timestamp, ssrc, data[start:end]) if start <= end else None


class Unwrapped:
    """A counter of fixed width, continued past its wraps: the value nearest to the newest one seen."""

    def __init__(self, modulo: int) -> None:
        self._modulo = modulo
        self.newest: int | None = None

    def take(self, value: int) -> int:
        """Return `value` continued, and remember it if it is the newest."""
        if self.newest is None:
            self.newest = value
            return value
        half = self._modulo // 2
        continued = self.newest + (value - self.newest + half) % self._modulo - half
        self.newest = max(self.newest, continued)
        return continued


class Reception:
    """What was received of one SSRC: expected and lost packets (RFC 3550 A.3), jitter (6.4.1, A.8)."""

    def __init__(self, clock_rate_hz: int) -> None:
        self._rate = clock_rate_hz
        self._sequences = Unwrapped(_SEQUENCE_MODULO)
        self._timestamps = Unwrapped(_TIMESTAMP_MODULO)
        self._base = 0
        self._seen: set[int] = set()
        self._recent_floor = 0
        self._transit: float | None = None
        self._jitter = self._jitter_sum = 0.0
        self._jitter_samples = 0
        self.packets = 0
        self._expected_before = 0

    def take(self, packet: Packet, at: float) -> int | None:
        """Count the packet, arrived at `at` seconds; return its continued timestamp, or None for a duplicate."""
        sequence = self._sequence_of(packet)
        if sequence in self._seen or sequence < self._recent_floor:
            return None
        self._remember(sequence)
        self.packets += 1
        timestamp = self._timestamps.take(packet.timestamp)
        self._measure_jitter(at * self._rate - timestamp)
        return timestamp

    def _sequence_of(self, packet: Packet) -> int:
        newest = self._sequences.newest
        sequence = self._sequences.take(packet.sequence)
        if newest is None or abs(sequence - newest) > _MAX_DROPOUT:
            self._start_anew(packet.sequence)
            return packet.sequence
        self._base = min(self._base, sequence)
        return sequence

    def _start_anew(self, sequence: int) -> None:
        if self.packets:
            self._expected_before = self.expected
        self._sequences = Unwrapped(_SEQUENCE_MODULO)
        self._sequences.take(sequence)
        self._timestamps = Unwrapped(_TIMESTAMP_MODULO)
        self._base, self._recent_floor, self._transit = sequence, sequence - _MAX_DROPOUT, None
        self._seen.clear()

    def _remember(self, sequence: int) -> None:
        """Keep what is needed to know a duplicate; what is older than a dropout counts as one."""
        self._seen.add(sequence)
        if len(self._seen) > 2 * _MAX_DROPOUT:
            self._recent_floor = max(self._seen) - _MAX_DROPOUT
            self._seen = {kept for kept in self._seen if kept >= self._recent_floor}

    def _measure_jitter(self, transit: float) -> None:
        if self._transit is not None and abs(transit - self._transit) < _LEAP_SECONDS * self._rate:
            self._jitter += (abs(transit - self._transit) - self._jitter) / 16
            self._jitter_sum += self._jitter
            self._jitter_samples += 1
        self._transit = transit

    @property
    def expected(self) -> int:
        """Packets sent, by the sequence numbers."""
        newest = self._sequences.newest
        return self._expected_before + (newest - self._base + 1 if newest is not None else 0)

    @property
    def lost(self) -> int:
        """Packets that never came."""
        return max(0, self.expected - self.packets)

    @property
    def jitter_seconds(self) -> float:
        """Interarrival jitter, mean over the stream."""
        return self._jitter_sum / self._jitter_samples / self._rate if self._jitter_samples else 0.0
