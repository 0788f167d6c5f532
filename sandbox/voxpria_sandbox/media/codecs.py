"""The codecs of a stream, each from and to 16-bit samples at 8 kHz: G.711 by tables, G.722 and Opus by FFmpeg (PyAV).

Our speech holds nothing above 4 kHz, so the wide codecs carry it without becoming wider.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol, cast

import av
import numpy as np
from numpy.typing import NDArray

from voxpria_sandbox.media import g711
from voxpria_sandbox.media.g711 import Samples

Name = Literal["PCMU", "PCMA", "G722", "OPUS"]


@dataclass(frozen=True)
class Codec:
    """How a codec is named in SDP (RFC 3551, RFC 7587), and how its RTP clock runs."""

    payload_type: int
    """The static one, or the one that we offer."""
    rtpmap: str
    clock_rate_hz: int

    @property
    def frame_ticks(self) -> int:
        """What the RTP clock goes on by in a frame of 20 ms."""
        return self.clock_rate_hz // 50


CODECS: dict[Name, Codec] = {
    "PCMU": Codec(0, "PCMU/8000", 8000),
    "PCMA": Codec(8, "PCMA/8000", 8000),
    "G722": Codec(9, "G722/8000", 8000),  # 16 kHz in truth: RFC 3551 section 4.5.2
    "OPUS": Codec(107, "opus/48000/2", 48000),
}


class Coder(Protocol):
    """One direction of one stream; it may remember what came before."""

    def encode(self, samples: Samples) -> list[bytes]:
        """Return the payloads that a frame of 20 ms gives: none, while the encoder looks ahead."""
        ...

    def decode(self, payload: bytes) -> Samples:
        """Return the samples in a payload; nothing for one that makes no sense."""
        ...


def coder(name: Name) -> Coder:
    """Return a coder for a new stream."""
    match name:
        case "PCMU" | "PCMA":
            return _G711(name)
        case "G722":
            return _Ffmpeg("g722", 16000)
        case "OPUS":
            return _Ffmpeg("libopus", 48000)


class _G711:
    def __init__(self, law: g711.Codec) -> None:
        self._law = law

    def encode(self, samples: Samples) -> list[bytes]:
        return [g711.encode(self._law, samples)]

    def decode(self, payload: bytes) -> Samples:
        return g711.decode(self._law, payload)


class _Ffmpeg:
    """A codec of FFmpeg's, whose sound has a multiple of our rate."""

    def __init__(self, name: str, rate_hz: int) -> None:
        self._rate, self._times = rate_hz, rate_hz // g711.RATE
        self._encoder = cast(av.AudioCodecContext, av.CodecContext.create(name, "w"))
        self._encoder.sample_rate, self._encoder.layout, self._encoder.format = rate_hz, "mono", "s16"
        self._encoder.time_base = Fraction(1, rate_hz)
        self._decoder = cast(av.AudioCodecContext, av.CodecContext.create(name, "r"))
        self._decoder.sample_rate, self._decoder.layout = rate_hz, "mono"
        self._sent, self._last = 0, 0

    def encode(self, samples: Samples) -> list[bytes]:
        wide = self._widened(samples)
        frame = av.AudioFrame.from_ndarray(wide.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._rate, self._sent
        self._sent += len(wide)
        return [bytes(packet) for packet in self._encoder.encode(frame)]

    def decode(self, payload: bytes) -> Samples:
        try:
            frames = self._decoder.decode(av.Packet(payload))
        except av.FFmpegError:
            frames = []
        if not frames:
            return np.zeros(0, dtype=np.int16)
        wide = np.concatenate([_mono(frame) for frame in frames])
        whole = wide[: len(wide) // self._times * self._times]
        narrow: Samples = whole.reshape(-1, self._times).mean(axis=1).astype(np.int16)
        return narrow

    def _widened(self, samples: Samples) -> Samples:
        """Go from each sample to the next in a straight line."""
        known = np.concatenate(([self._last], samples))
        self._last = int(samples[-1]) if len(samples) else self._last
        at = np.arange(1, len(samples) * self._times + 1) / self._times
        return np.interp(at, np.arange(len(known)), known).astype(np.int16)


def _mono(frame: av.AudioFrame) -> NDArray[np.float64]:
    sound = frame.to_ndarray().astype(np.float64)
    if frame.format.name.startswith("flt"):
        sound *= 32767
    channels = len(frame.layout.channels)
    by_channel = sound if frame.format.is_planar else sound.reshape(-1, channels).T
    mixed: NDArray[np.float64] = by_channel.mean(axis=0)
    return mixed
