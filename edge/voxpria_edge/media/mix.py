"""Two sides on one time axis, into a stereo mp3 that grows as packets come: memory does not grow with the call."""

from pathlib import Path

import av
import numpy as np

from voxpria_edge.media.codecs import Samples

SAMPLE_RATE_HZ = 16000
_BIT_RATE = 64000
_WINDOW = 2 * SAMPLE_RATE_HZ
"""How far back a late packet may still be placed."""
_CHUNK = SAMPLE_RATE_HZ // 5


class StereoWriter:
    """A stereo mp3 in the making: `place` samples of a channel at a position, in about the order of time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + ".part")
        self._container = av.open(str(self._unfinished), "w", format="mp3")
        # libmp3lame's joint stereo would let the loud side be heard on the silent one; its fast psychoacoustics take
        # half the time, and speech at this rate sounds the same
        options = {"joint_stereo": "0", "compression_level": "7"}
        self._stream = self._container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="stereo", options=options)
        self._stream.bit_rate = _BIT_RATE
        self._buffer = np.zeros((2, 2 * _WINDOW), dtype=np.int16)
        self._start: float | None = None
        self._written = 0
        self._end = 0

    def since_start(self, at: float) -> float:
        """Return the seconds from the first time asked for to `at`: the axis begins with the first packet."""
        if self._start is None:
            self._start = at
        return at - self._start

    def place(self, channel: int, position: int, samples: Samples) -> None:
        """Put `samples` at `position` (in samples since the start); what is too late to be placed is left out."""
        skip = max(0, self._written - position)
        position, samples = position + skip, samples[skip:]
        if not len(samples):
            return
        while position + len(samples) - self._written > self._buffer.shape[1]:
            self._write(_WINDOW)
        start = position - self._written
        self._buffer[channel, start : start + len(samples)] = samples
        self._end = max(self._end, position + len(samples))

    @property
    def seconds(self) -> float:
        """Length so far."""
        return self._end / SAMPLE_RATE_HZ

    def _write(self, count: int) -> None:
        for start in range(0, count, _CHUNK):
            self._encode(self._buffer[:, start : min(start + _CHUNK, count)])
        self._buffer[:, :-count] = self._buffer[:, count:]
        self._buffer[:, -count:] = 0
        self._written += count

    def _encode(self, samples: Samples) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16p", layout="stereo")
        frame.sample_rate = SAMPLE_RATE_HZ
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Finish the file and put it in its place."""
        self._write_rest()
        self._container.close()
        self._unfinished.rename(self._path)

    def abandon(self) -> None:
        """Leave no file."""
        self._container.close()
        self._unfinished.unlink(missing_ok=True)

    def _write_rest(self) -> None:
        while self._end > self._written:
            self._write(min(self._end - self._written, _WINDOW))
        self._container.mux(self._stream.encode(None))


def widen(samples: Samples, before: int) -> Samples:
    """Return 8 kHz samples at 16 kHz, by linear interpolation from `before`, the sample that came last."""
    wide = np.empty(2 * len(samples), dtype=np.int16)
    shifted = np.concatenate(([before], samples[:-1])).astype(np.int32)
    wide[0::2] = (shifted + samples) // 2
    wide[1::2] = samples
    return wide


def resampled(samples: Samples, rate_hz: int) -> Samples:
    """Return a whole sound at the rate of recordings, by cutting its spectrum."""
    if not len(samples):
        return samples
    length = len(samples) * SAMPLE_RATE_HZ // rate_hz
    spectrum = np.fft.rfft(samples.astype(np.float64))[: length // 2 + 1]
    sound = np.fft.irfft(spectrum, length) * length / len(samples)
    return np.clip(sound, -32768, 32767).astype(np.int16)
