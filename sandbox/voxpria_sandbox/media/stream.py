"""The media of one call: RTP both ways, RTCP about it, and a measure of what was heard."""

import asyncio
import contextlib
import random
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pylibsrtp
import structlog
from voxpria_sip.uri import MalformedError

from voxpria_sandbox.media import codecs, g711, rtcp, rtp, srtp
from voxpria_sandbox.media.pacer import FRAME_SECONDS, Pacer
from voxpria_sandbox.sip.sdp import Audio

_FRAME_SAMPLES = int(g711.RATE * FRAME_SECONDS)
_SILENCE: g711.Samples = np.zeros(_FRAME_SAMPLES, dtype=np.int16)
_PORTS = range(16384, 28000, 2)
_PORT_ATTEMPTS = 50
_FIRST_REPORT_TICKS, _REPORT_TICKS = 40, 125
"""After 0.8 s and then every 2.5 s, sooner than RFC 3550's 5 s: a call of a few seconds is to be measured too."""
_KEYS = "0123456789*#ABCD"
"""By event code (RFC 4733 section 3.2)."""
_EVENT_VOLUME = 10
_MOST_DIGITS, _MOST_ECHOED_FRAMES = 64, 25
_SPEECH_RMS = 200.0
"""Loudness (of 32767) above which a frame counts as speech: -44 dB of full scale."""

log = structlog.get_logger(__name__)


class SpeechMeter:
    """Adds up how long what came was loud enough to be speech."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def note(self, samples: g711.Samples) -> None:
        """Count a frame."""
        if len(samples) and float(np.sqrt(np.mean(samples.astype(np.float32) ** 2))) > _SPEECH_RMS:
            self.seconds += len(samples) / g711.RATE


class MediaStream:
    """RTP and RTCP on two adjacent ports. Silent until something is played; begins to send when connected."""

    def __init__(self, address: str, pacer: Pacer) -> None:
        self._address, self._pacer = address, pacer
        self._ssrc = secrets.randbits(32)
        self._sequence, self._base = secrets.randbits(16), secrets.randbits(32)
        self._timestamp = self._base
        self._remote: Audio | None = None
        self._codec: codecs.Name = "PCMU"
        self._payload_type = 0
        self._encoder = codecs.coder(self._codec)
        self._decoders: dict[codecs.Name, codecs.Coder] = {}
        self._outbound: pylibsrtp.Session | None = None
        self._inbound: pylibsrtp.Session | None = None
        self._frames: deque[g711.Samples] = deque()
        self._played: asyncio.Future[None] | None = None
        self._reception: rtcp.Reception | None = None
        self._meter = SpeechMeter()
        self._octets = self._ticks = 0
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None
        self._pressed: deque[tuple[int, int, int]] = deque()
        self._event_began = 0
        self._last_event: int | None = None
        self.digits: asyncio.Queue[str] = asyncio.Queue(_MOST_DIGITS)
        """Keys that the peer pressed."""
        self.is_muted = False
        """True sends no packet of audio."""
        self.is_echo = False
        """True sends back what comes."""
        self.port = 0
        self.packets_sent = self.packets_received = 0
        self.first_heard_at: float | None = None
        """When the first packet came, on the monotonic clock."""

    @property
    def heard_speech_seconds(self) -> float:
        """Seconds of speech heard."""
        return round(self._meter.seconds, 2)

    async def open(self) -> None:
        """Bind two ports; raises OSError if none are free."""
        for _ in range(_PORT_ATTEMPTS):
            port = random.choice(_PORTS)  # noqa: S311
            try:
                self._rtp = await self._bind(port, _Receiver(self._on_rtp))
                self._rtcp = await self._bind(port + 1, _Receiver(self._on_rtcp))
            except OSError:
                self._close_sockets()
                continue
            self.port = port
            return
        raise OSError("no ports for media are free")

    async def _bind(self, port: int, receiver: "_Receiver") -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: receiver, local_addr=(self._address, port))
        return transport

    def connect(self, remote: Audio, secret: bytes) -> None:
        """Send to this peer, in its first codec, from now on; with `secret`, if its media is encrypted."""
        if self._remote is None:
            self._pacer.add(self)
        if remote.key is not None and (self._remote is None or self._remote.key != remote.key):
            self._outbound = srtp.outbound(secret)
            self._inbound = srtp.inbound(remote.key.secret)
        if remote.codecs[0] != self._codec:
            self._codec, self._encoder = remote.codecs[0], codecs.coder(remote.codecs[0])
        self._remote, self._payload_type = remote, remote.payload_types[0]

    def play(self, samples: g711.Samples) -> "asyncio.Future[None]":
        """Play after what is still being played; the future is done when it is out, or the stream is closed."""
        for start in range(0, len(samples), _FRAME_SAMPLES):
            self._frames.append(samples[start : start + _FRAME_SAMPLES])
        if self._played is None:
            self._played = asyncio.get_running_loop().create_future()
        return self._played

    def tick(self, number: int) -> None:
        """Send the frame of this tick."""
        remote = self._remote
        if remote is None or self._rtp is None:
            return
        self._timestamp = (self._base + number * codecs.CODECS[self._codec].frame_ticks) & 0xFFFFFFFF
        frame = self._next_frame()
        if self._pressed:
            self._send_event(remote)
        elif not remote.is_held and not self.is_muted:
            for payload in self._encoder.encode(frame):
                self._send(payload, remote)
        self._ticks += 1
        if self._ticks == _FIRST_REPORT_TICKS or self._ticks % _REPORT_TICKS == 0:
            self._report(is_last=False)

    def press(self, keys: str) -> None:
        """Press keys, one after another, as telephone events (RFC 4733): 100 ms each, its end sent three times."""
        for key in keys:
            packets = [(_KEYS.index(key), frames, 0) for frames in range(1, 6)] + [(_KEYS.index(key), 5, 0x80)] * 3
            self._pressed.extend(packets)

    def _send_event(self, remote: Audio) -> None:
        event, frames, end = self._pressed.popleft()
        is_first = frames == 1 and not end
        if is_first:
            self._event_began = self._timestamp
        if remote.event_payload_type is None or self._rtp is None:
            return
        payload = struct.pack("!BBH", event, end | _EVENT_VOLUME, frames * _FRAME_SAMPLES)
        packet = rtp.Packet(
            remote.event_payload_type, self._sequence, self._event_began, self._ssrc, payload, is_marked=is_first
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._rtp.sendto(bytes(packet), (remote.address, remote.port))

    def _on_event(self, packet: rtp.Packet) -> None:
        """Take a key once, by the time at which it was pressed."""
        if packet.timestamp == self._last_event or not packet.payload or packet.payload[0] >= len(_KEYS):
            return
        self._last_event = packet.timestamp
        with contextlib.suppress(asyncio.QueueFull):
            self.digits.put_nowait(_KEYS[packet.payload[0]])

    def _next_frame(self) -> g711.Samples:
        frame = self._frames.popleft() if self._frames else _SILENCE
        if not self._frames:
            self._finish_playing()
        return np.pad(frame, (0, _FRAME_SAMPLES - len(frame)))

    def _finish_playing(self) -> None:
        if self._played is not None and not self._played.done():
            self._played.set_result(None)
        self._played = None

    def _send(self, frame: bytes, remote: Audio) -> None:
        packet = rtp.Packet(
            self._payload_type,
            self._sequence,
            self._timestamp,
            self._ssrc,
            frame,
            is_marked=self.packets_sent == 0,
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.packets_sent += 1
        self._octets += len(frame)
        if self._rtp is not None:
            data = bytes(packet)
            data = self._outbound.protect(data) if self._outbound else data
            self._rtp.sendto(data, (remote.address, remote.port))

    def _report(self, *, is_last: bool) -> None:
        if self._rtcp is None or self._remote is None or self._rtcp.is_closing():
            return
        block = self._reception.block(time.monotonic()) if self._reception else b""
        sent = rtcp.Sent(self._ssrc, self.packets_sent, self._octets, self._timestamp)
        data = rtcp.report(sent, f"sandbox@{self._address}", time.time(), block, is_last=is_last)
        data = self._outbound.protect_rtcp(data) if self._outbound else data
        self._rtcp.sendto(data, (self._remote.address, self._remote.port + 1))

    def _on_rtp(self, data: bytes) -> None:
        packet = rtp.parse(srtp.opened(self._inbound, data))
        codec = self._codec_of(packet.payload_type)
        now = time.monotonic()
        if self._reception is None or self._reception.ssrc != packet.ssrc:
            clock_rate_hz = codecs.CODECS[codec or self._codec].clock_rate_hz
            self._reception = rtcp.Reception(packet.ssrc, packet.sequence, clock_rate_hz)
        self._reception.note(packet, now)
        self.packets_received += 1
        if self.first_heard_at is None:
            self.first_heard_at = now
        if codec is not None:
            if codec not in self._decoders:
                self._decoders[codec] = codecs.coder(codec)
            samples = self._decoders[codec].decode(packet.payload)
            self._meter.note(samples)
            if self.is_echo and len(self._frames) < _MOST_ECHOED_FRAMES:
                self._frames.append(samples[:_FRAME_SAMPLES])
        elif self._remote is not None and packet.payload_type == self._remote.event_payload_type:
            self._on_event(packet)

    def _codec_of(self, payload_type: int) -> codecs.Name | None:
        """Return which codec a packet is in: as the peer calls it, once we know, or by its static type."""
        if self._remote is not None and payload_type in self._remote.payload_types:
            return self._remote.codecs[self._remote.payload_types.index(payload_type)]
        return next((name for name, codec in codecs.CODECS.items() if codec.payload_type == payload_type), None)

    def _on_rtcp(self, data: bytes) -> None:
        report = rtcp.sender_report_time(srtp.opened_rtcp(self._inbound, data))
        if report is not None and self._reception is not None and report[0] == self._reception.ssrc:
            self._reception.last_report, self._reception.last_report_at = report[1], time.monotonic()

    def close(self) -> None:
        """Send a last report, and close the ports."""
        self._pacer.remove(self)
        self._report(is_last=True)
        self._finish_playing()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for transport in (self._rtp, self._rtcp):
            if transport is not None:
                transport.close()


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self._receive(data)
        except MalformedError as error:
            log.info("media dropped", remote=addr, problem=str(error))
