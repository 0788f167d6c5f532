"""RTCP (RFC 3550 section 6): what was sent, and how well the other side was received."""

import struct
from dataclasses import dataclass, field

from voxpria_sip.uri import MalformedError

from voxpria_sandbox.media.rtp import Packet

_NTP_EPOCH_SECONDS = 2208988800
_SENDER_REPORT, _RECEIVER_REPORT, _SDES, _BYE = 200, 201, 202, 203
_MAX_BYTES = 1500


@dataclass
class Reception:
    """The statistics of one received stream (RFC 3550 appendices A.1, A.3, A.8)."""

    ssrc: int
    first_sequence: int
    clock_rate_hz: int = 8000
    highest: int = field(init=False)
    """Highest sequence number, with the count of its wraps in the upper bits."""
    received: int = 0
    jitter: float = 0.0
    """In units of the clock."""
    last_report: int = 0
    """Middle 32 bits of the NTP time of the sender's last report."""
    last_report_at: float = 0.0
    _transit: float | None = None
    _reported: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        self.highest = self.first_sequence

    def note(self, packet: Packet, now: float) -> None:
        """Count a packet that came at `now` (seconds, monotonic)."""
        step = (packet.sequence - self.highest) & 0xFFFF
        if step < 0x8000:
            self.highest += step
        self.received += 1
        transit = now * self.clock_rate_hz - packet.timestamp
        if self._transit is not None:
            difference = abs((transit - self._transit + 2**31) % 2**32 - 2**31)  # timestamps wrap
            self.jitter += (difference - self.jitter) / 16
        self._transit = transit

    @property
    def expected(self) -> int:
        """How many packets should have come."""
        return self.highest - self.first_sequence + 1

    def block(self, now: float) -> bytes:
        """Return the report block for now, and begin the next interval."""
        expected, received = self.expected - self._reported[0], self.received - self._reported[1]
        self._reported = self.expected, self.received
        fraction = max(0, min(255, 256 * (expected - received) // expected)) if expected > 0 else 0
        lost = max(-0x800000, min(0x7FFFFF, self.expected - self.received)) & 0xFFFFFF
        delay = int((now - self.last_report_at) * 65536) & 0xFFFFFFFF if self.last_report else 0
        return struct.pack(
            "!IIIIII",
            self.ssrc,
            fraction << 24 | lost,
            self.highest & 0xFFFFFFFF,
            int(self.jitter),
            self.last_report,
            delay,
        )


@dataclass(frozen=True)
class Sent:
    """What we have sent so far."""

    ssrc: int
    packets: int
    octets: int
    timestamp: int
    """RTP timestamp of now."""


def report(sent: Sent, cname: str, wall_seconds: float, block: bytes, *, is_last: bool) -> bytes:
    """Return a compound packet: a sender's report (or a receiver's, if nothing was sent), our name, perhaps BYE."""
    blocks = 1 if block else 0
    if sent.packets:
        ntp = int((wall_seconds + _NTP_EPOCH_SECONDS) * 2**32) & 0xFFFFFFFFFFFFFFFF
        info = struct.pack("!QIII", ntp, sent.timestamp, sent.packets & 0xFFFFFFFF, sent.octets & 0xFFFFFFFF)
        head = _packet(_SENDER_REPORT, blocks, struct.pack("!I", sent.ssrc) + info + block)
    else:
        head = _packet(_RECEIVER_REPORT, blocks, struct.pack("!I", sent.ssrc) + block)
    name = cname.encode()[:255]
    item = struct.pack("!IBB", sent.ssrc, 1, len(name)) + name + b"\0"
    bye = _packet(_BYE, 1, struct.pack("!I", sent.ssrc)) if is_last else b""
    return head + _packet(_SDES, 1, item + b"\0" * (-len(item) % 4)) + bye


def _packet(kind: int, count: int, content: bytes) -> bytes:
    return struct.pack("!BBH", 0x80 | count, kind, len(content) // 4) + content


def sender_report_time(data: bytes) -> tuple[int, int] | None:
    """Return (sender's SSRC, middle 32 bits of its NTP time) if there is a sender's report; raise MalformedError."""
    if len(data) > _MAX_BYTES:
        raise MalformedError("RTCP is too long")
    at = 0
    while at < len(data):
        if len(data) - at < 4 or data[at] >> 6 != 2:
            raise MalformedError("not RTCP")
        length = 4 + 4 * int.from_bytes(data[at + 2 : at + 4])
        if at + length > len(data):
            raise MalformedError("RTCP is cut off")
        if data[at + 1] == _SENDER_REPORT and length >= 28:
            ssrc, ntp = struct.unpack_from("!IQ", data, at + 4)
            return ssrc, ntp >> 16 & 0xFFFFFFFF
        at += length
    return None
