"""One end of a call's media: it sends a tone in a codec, in clear or as SRTP, and says which tone it hears."""

import base64
import contextlib
import fractions
import os
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import av
import numpy as np
import numpy.typing as npt
import pylibsrtp
from media_tools import loudest_hertz

Samples = npt.NDArray[np.int16]
_FRAME_SECONDS = 0.02


@dataclass(frozen=True)
class Codec:
    """How a codec is named in SDP, and in FFmpeg; `clock` is RTP's, `rate` the sound's."""

    payload_type: int
    rtpmap: str
    ffmpeg: str
    clock: int
    rate: int


PCMU = Codec(0, "PCMU/8000", "pcm_mulaw", 8000, 8000)
PCMA = Codec(8, "PCMA/8000", "pcm_alaw", 8000, 8000)
G722 = Codec(9, "G722/8000", "g722", 8000, 16000)
OPUS = Codec(96, "opus/48000/2", "libopus", 48000, 48000)
EVENTS = 101
_SUITES = {
    "AES_CM_128_HMAC_SHA1_80": (pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    "AEAD_AES_256_GCM": (pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}


@dataclass
class Heard:
    """What came: packets by payload type, and the sound of those in our codec."""

    packets: dict[int, int] = field(default_factory=dict)
    undecryptable: int = 0
    events: list[int] = field(default_factory=list)
    """Digits (RFC 4733) whose end has come, each once."""
    _ended_at: int = -1

    def note_event(self, timestamp: int, payload: bytes) -> None:
        if len(payload) >= 4 and payload[1] & 0x80 and timestamp != self._ended_at:
            self._ended_at = timestamp
            self.events.append(payload[0])


class RtpPeer:
    """Sends `hertz` from when it is told where to, and listens from the start."""

    def __init__(
        self, address: str, codec: Codec, hertz: float, suite: str | None = None, profile: str | None = None
    ) -> None:
        self.tag = 1
        """Of our key: an answer repeats the tag that its suite had in the offer (RFC 4568 section 5.1.2)."""
        self.profile = profile or ("RTP/SAVP" if suite else "RTP/AVP")
        self.codec, self.hertz, self.suite = codec, hertz, suite
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._socket.settimeout(0.1)
        self.is_quiet = False
        """True sends nothing, and stops our clock."""
        self.loses_every = 0
        """Of so many packets one never leaves; 0 loses none."""
        self.sways_seconds = 0.0
        """By how much every other packet leaves late."""
        self.ssrc = random.getrandbits(32)
        self.sent_packets = self.sent_octets = self.sent_until = 0
        """How many of our packets have gone, what was in them, and up to which RTP timestamp."""
        self.port = int(self._socket.getsockname()[1])
        self.key = os.urandom(_SUITES[suite][1]) if suite else b""
        self.heard = Heard()
        self._sound: list[Samples] = []
        self._decoder = av.CodecContext.create(codec.ffmpeg, "r")
        if codec.ffmpeg != "libopus":
            self._decoder.sample_rate = codec.rate
            self._decoder.layout = "mono"
        self._inbound: pylibsrtp.Session | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._digits: list[int] = []

    @property
    def media(self) -> str:
        """The end of our media line, and what follows it."""
        lines = [f"{self.profile} {self.codec.payload_type} {EVENTS}"]
        lines.append(f"a=rtpmap:{self.codec.payload_type} {self.codec.rtpmap}")
        lines += [f"a=rtpmap:{EVENTS} telephone-event/8000", f"a=fmtp:{EVENTS} 0-15"]
        if self.suite:
            lines.append(f"a=crypto:{self.tag} {self.suite} inline:{base64.b64encode(self.key).decode()}")
        return "\r\n".join(lines)

    @property
    def keys(self) -> list[tuple[str, str]]:
        """What the scenarios take."""
        return [("rtp_port", str(self.port)), ("media", self.media)]

    def talk(self, sdp: str) -> None:
        """Send to where this session description says, and understand what it says will come."""
        port = re.search(r"^m=audio (\d+) ", sdp, re.M)
        address = re.search(r"^c=IN IP[46] (\S+)", sdp, re.M)
        assert port
        assert address
        crypto = re.search(rf"^a=crypto:\d+ ({self.suite}) inline:([^\s|]+)", sdp, re.M)
        if self.suite:
            assert crypto, sdp
            self._inbound = _session(self.suite, base64.b64decode(crypto[2]), pylibsrtp.Policy.SSRC_ANY_INBOUND)
        else:
            assert " RTP/AVP " in sdp
        self._start(self._listen)
        self._start(self._send, (address[1], int(port[1])))

    def press(self, digit: int) -> None:
        """Send a telephone event (RFC 4733) instead of the tone, for 100 ms."""
        self._digits.append(digit)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _send(self, remote: tuple[str, int]) -> None:
        outbound = _session(self.suite, self.key, pylibsrtp.Policy.SSRC_ANY_OUTBOUND) if self.suite else None
        sequence, clock = random.getrandbits(15), random.getrandbits(31)
        encoder = _Encoder(self.codec)
        ticks = int(self.codec.clock * _FRAME_SECONDS)
        number, next_at, event_left, event_clock, digit = 0, time.monotonic(), 0, 0, 0
        while not self._stop.is_set():
            if self.is_quiet:
                next_at = time.monotonic() + _FRAME_SECONDS
                self._stop.wait(_FRAME_SECONDS)
                continue
            if event_left == 0 and self._digits:
                digit, event_left, event_clock = self._digits.pop(0), 7, clock
            if event_left:
                is_end, elapsed = event_left <= 3, (8 - max(event_left, 3)) * 160
                payload = struct.pack(">BBH", digit, (0x80 if is_end else 0) | 10, elapsed)
                packets = [(EVENTS, event_clock, payload)]
                event_left -= 1
            else:
                packets = [(self.codec.payload_type, clock, data) for data in encoder.frame(self.hertz, number)]
            for kind, timestamp, payload in packets:
                data = struct.pack(">BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, self.ssrc) + payload
                data = outbound.protect(data) if outbound else data
                if sequence % 2:
                    time.sleep(self.sways_seconds)
                self.sent_packets, self.sent_octets = self.sent_packets + 1, self.sent_octets + len(payload)
                self.sent_until = timestamp & 0xFFFFFFFF
                if self.loses_every == 0 or sequence % self.loses_every:
                    with contextlib.suppress(OSError):
                        self._socket.sendto(data, remote)
                sequence += 1
            number, clock, next_at = number + 1, clock + ticks, next_at + _FRAME_SECONDS
            time.sleep(max(0.0, next_at - time.monotonic()))

    def _listen(self) -> None:
        while not self._stop.is_set():
            try:
                data = self._socket.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self._inbound is not None:
            try:
                data = self._inbound.unprotect(data)
            except pylibsrtp.Error:
                self.heard.undecryptable += 1
                return
        kind, timestamp = data[1] & 0x7F, int.from_bytes(data[4:8])
        self.heard.packets[kind] = self.heard.packets.get(kind, 0) + 1
        if kind == EVENTS:
            self.heard.note_event(timestamp, data[12:])
        elif kind == self.codec.payload_type:
            for frame in self._decoder.decode(av.Packet(data[12:])):
                self._sound.append(_mono(frame))

    def heard_hertz(self) -> float:
        """Return the loudest tone of the last half second, 0 as long as less was heard."""
        sound = np.concatenate(self._sound[-25:]) if len(self._sound) >= 25 else np.zeros(0)
        if len(sound) == 0 or float(np.abs(sound).max()) < 500:
            return 0.0
        return loudest_hertz(sound.astype(float), self.codec.rate)

    def forget(self) -> None:
        """Listen anew: only what comes from now on is heard."""
        self._sound = []

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2)
        self._socket.close()


@contextlib.contextmanager
def rtp_peer(
    address: str, codec: Codec, hertz: float, suite: str | None = None, profile: str | None = None
) -> Iterator[RtpPeer]:
    """Run a peer until the way out."""
    peer = RtpPeer(address, codec, hertz, suite, profile)
    try:
        yield peer
    finally:
        peer.close()


class _Encoder:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._context = av.CodecContext.create(codec.ffmpeg, "w")
        self._context.sample_rate = codec.rate
        self._context.layout = "mono"
        self._context.format = "s16"
        self._context.time_base = fractions.Fraction(1, codec.rate)
        self._context.open()

    def frame(self, hertz: float, number: int) -> list[bytes]:
        """Return the packets of this frame of a tone."""
        count = int(self._codec.rate * _FRAME_SECONDS)
        at = (np.arange(count) + number * count) / self._codec.rate
        sound = (8000 * np.sin(2 * np.pi * hertz * at)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._codec.rate, number * count
        return [bytes(packet) for packet in self._context.encode(frame)]


def _mono(frame: av.AudioFrame) -> Samples:
    data = frame.to_ndarray().astype(np.float64)
    if frame.format.name.startswith("flt"):
        data *= 32767
    channels = len(frame.layout.channels)
    samples = data.reshape(-1, channels).mean(axis=1) if not frame.format.is_planar else data.mean(axis=0)
    return samples.astype(np.int16)


def _session(suite: str, key: bytes, kind: int) -> pylibsrtp.Session:
    return pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=_SUITES[suite][0]))
