"""An end of a call's media that says how the other side's packets come, as phones do (RTCP, RFC 3550 section 6)."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rtp_peer import Codec, RtpPeer
from voxpria_sandbox.media import rtcp, rtp

_EVERY_SECONDS = 1.0
_TRIES = 50


@dataclass(frozen=True)
class Reported:
    """What one report said of the packets that had come."""

    loss_percent: float
    """Since the report before."""
    lost: int
    """Since the beginning."""
    jitter_ms: float


class ReportingPeer(RtpPeer):
    """A peer in clear that reports every second, on the port behind its own."""

    def __init__(self, address: str, codec: Codec, hertz: float) -> None:
        super().__init__(address, codec, hertz)
        self._rtcp = socket.socket(type=socket.SOCK_DGRAM)
        self._rtcp.bind((address, self.port + 1))
        self._rtcp.settimeout(0.1)
        self._reception: rtcp.Reception | None = None
        self.reported: list[Reported] = []

    def _take(self, data: bytes) -> None:
        packet = rtp.parse(data)
        if self._reception is None:
            self._reception = rtcp.Reception(packet.ssrc, packet.sequence, self.codec.clock)
        self._reception.note(packet, time.monotonic())
        super()._take(data)

    def _send(self, remote: tuple[str, int]) -> None:
        self._start(self._report, (remote[0], remote[1] + 1))
        super()._send(remote)

    def _report(self, remote: tuple[str, int]) -> None:
        due_at = time.monotonic() + _EVERY_SECONDS
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self._hear(self._rtcp.recv(2048))
            if time.monotonic() >= due_at:
                due_at += _EVERY_SECONDS
                with contextlib.suppress(OSError):
                    self._rtcp.sendto(self._said(), remote)

    def _hear(self, data: bytes) -> None:
        said = rtcp.sender_report_time(data)
        if said is not None and self._reception is not None and said[0] == self._reception.ssrc:
            self._reception.last_report, self._reception.last_report_at = said[1], time.monotonic()

    def _said(self) -> bytes:
        block = self._reception.block(time.monotonic()) if self._reception else b""
        if block:
            lost = int.from_bytes(block[5:8], signed=True)
            jitter_ms = 1000 * int.from_bytes(block[12:16]) / self.codec.clock
            self.reported.append(Reported(100 * block[4] / 256, lost, jitter_ms))
        sent = rtcp.Sent(self.ssrc, self.sent_packets, self.sent_octets, self.sent_until)
        return rtcp.report(sent, "peer@test", time.time(), block, is_last=False)

    def close(self) -> None:
        super().close()
        self._rtcp.close()


@contextlib.contextmanager
def reporting_peer(address: str, codec: Codec, hertz: float) -> Iterator[ReportingPeer]:
    """Run a peer until the way out."""
    peer = _bound(address, codec, hertz)
    try:
        yield peer
    finally:
        peer.close()


def _bound(address: str, codec: Codec, hertz: float) -> ReportingPeer:
    """Find two ports beside each other."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            return ReportingPeer(address, codec, hertz)
    raise OSError("no two ports beside each other are free")
