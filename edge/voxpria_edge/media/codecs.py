"""Audio decoders: payload in, signed 16-bit samples out."""

from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

STATIC_TYPES = {0: "PCMU", 8: "PCMA", 9: "G722"}
"""Payload types that need no description (RFC 3551 section 6)."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as we meet it: its RTP clock, the rate of what its decoder gives, and how to make a decoder."""

    name: str
    clock_rate_hz: int
    sample_rate_hz: int
    decoder: Callable[[], Callable[[bytes], Samples]]


def _mu_law_table() -> Samples:
    """ITU-T G.711 table 2a, as 16-bit samples."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_law_table() -> Samples:
    """ITU-T G.711 table 1a, as 16-bit samples."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment = (code & 0x70) >> 4
    step = ((code & 0x0F) << 4) + 8
    magnitude = np.where(segment > 0, (step + 0x100) << np.maximum(segment - 1, 0), step)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _table_decoder(table: Samples) -> Callable[[], Callable[[bytes], Samples]]:
    return lambda: lambda payload: table[np.frombuffer(payload, dtype=np.uint8)]


def _g722_decoder() -> Callable[[bytes], Samples]:
    context = av.CodecContext.create("g722", "r")
    context.sample_rate = 16000
    context.layout = "mono"

    def decode(payload: bytes) -> Samples:
        frames = context.decode(av.Packet(payload))
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.int16)

    return decode


def _opus_decoder() -> Callable[[bytes], Samples]:
    """FFmpeg's decoder gives 48 kHz whatever the sender's rate; every third sample's neighbourhood is kept."""
    context = av.CodecContext.create("libopus", "r")

    def decode(payload: bytes) -> Samples:
        sounds = [_mono(frame) for frame in context.decode(av.Packet(payload))]
        sound = np.concatenate(sounds) if sounds else np.zeros(0)
        narrow: Samples = sound[: len(sound) // 3 * 3].reshape(-1, 3).mean(axis=1).astype(np.int16)
        return narrow

    return decode


def _mono(frame: av.AudioFrame) -> npt.NDArray[np.float64]:
    sound = frame.to_ndarray().astype(np.float64)
    if frame.format.name.startswith("flt"):
        sound *= 32767
    by_channel = sound if frame.format.is_planar else sound.reshape(-1, len(frame.layout.channels)).T
    mixed: npt.NDArray[np.float64] = by_channel.mean(axis=0)
    return mixed


CODECS = {
    codec.name: codec
    for codec in (
        Codec("PCMU", 8000, 8000, _table_decoder(_mu_law_table())),
        Codec("PCMA", 8000, 8000, _table_decoder(_a_law_table())),
        Codec("G722", 8000, 16000, _g722_decoder),  # the clock is wrong by history: RFC 3551 section 4.5.2
        Codec("opus", 48000, 16000, _opus_decoder),
    )
}
