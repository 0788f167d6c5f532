"""Captures made by hand: RTP packets with tones in them, and mp3 files taken apart again."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

RATE = 8000
PER_PACKET = 160
START = 1_700_000_000
"""When the captures begin, in seconds since 1970."""


@dataclass(frozen=True)
class Sent:
    """An RTP packet on its way: when it arrives, at which port, and its fields."""

    at: float
    port: int
    sequence: int
    timestamp: int
    payload: bytes
    payload_type: int = 0
    ssrc: int = 1


def tone(hertz: float, seconds: float) -> npt.NDArray[np.int16]:
    time = np.arange(int(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def mu_law(samples: npt.NDArray[np.int16]) -> bytes:
    """Encode by ITU-T G.711: the textbook algorithm, not the decoder's table."""
    sign = np.where(samples < 0, 0x80, 0)
    magnitude = np.minimum(np.abs(samples.astype(np.int32)), 32635) + 0x84
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    return (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8).tobytes()


def talk(
    hertz: float, seconds: float, port: int, *, start: float = 0.0, sequence: int = 100, ssrc: int = 1
) -> list[Sent]:
    """A side that sends a tone, a packet each 20 ms."""
    payload = mu_law(tone(hertz, seconds))
    return [
        Sent(
            start + i * 0.02, port, (sequence + i) % 65536, i * PER_PACKET, payload[i * 160 : i * 160 + 160], ssrc=ssrc
        )
        for i in range(len(payload) // PER_PACKET)
    ]


def write_pcap(path: Path, packets: Iterable[Sent]) -> Path:
    records = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for sent in sorted(packets, key=lambda packet: packet.at):
        rtp = struct.pack(">BBHII", 0x80, sent.payload_type, sent.sequence, sent.timestamp, sent.ssrc) + sent.payload
        udp = struct.pack(">HHHH", 4000, sent.port, 8 + len(rtp), 0) + rtp
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 0x7F000001, 0x7F000001)
        frame = bytes(12) + b"\x08\x00" + ip + udp
        seconds, micros = divmod(round((START + sent.at) * 1e6), 1_000_000)
        records.append(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)
    path.write_bytes(b"".join(records))
    return path


def decode(mp3: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Return the channels of an mp3 as rows, and its sample rate."""
    with av.open(str(mp3)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1).astype(float), container.streams.audio[0].rate


def loudest_hertz(samples: npt.NDArray[np.float64], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[spectrum.argmax()])


def loudness(samples: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt((samples**2).mean()))
