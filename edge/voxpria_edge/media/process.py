"""One capture: read once, both sides measured and mixed."""

import contextlib
import wave
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from voxpria_routing.events import Direction

from voxpria_edge.media import pcap, quality, rtp
from voxpria_edge.media.codecs import CODECS, STATIC_TYPES, Codec, Samples
from voxpria_edge.media.job import CaptureJob, MediaResult, Sound
from voxpria_edge.media.mix import SAMPLE_RATE_HZ, StereoWriter, resampled, widen

_CALLER, _AGENT = 0, 1
_RESYNC_SECONDS = 0.25
"""A packet further than this from where its arrival puts it is placed by its arrival: the sender's clock leapt."""
_IDLE_LINE = 104.0
"""Root mean square of samples that are no louder than a line on which nobody speaks: -50 dB of full scale."""
_MOST_STREAMS = 64
"""SSRCs looked at on one side; a flood of them is no call."""


_MOST_BEGUN = 200
"""Captures that are read while their calls last; more are read when they have ended."""
_begun: "dict[Path, _Reading]" = {}
"""In the worker process: what has been read so far."""


def advance(job: CaptureJob) -> None:
    """Read what a capture holds by now, so that little is left to be done when the call has ended."""
    reading = _begun.get(job.pcap)
    if reading is not None and not reading.fits(job):
        _begun.pop(job.pcap).abandon()
        reading = None
    if reading is None:
        if len(_begun) >= _MOST_BEGUN:
            return
        reading = _begun[job.pcap] = _Reading(job)
    try:
        reading.advance(job)
    except BaseException:
        forget(job.pcap)
        raise


def forget(capture: Path) -> None:
    """Drop what was read of a capture."""
    reading = _begun.pop(capture, None)
    if reading is not None:
        reading.abandon()


def process(job: CaptureJob) -> MediaResult:
    """Measure both sides of a capture, and mix them into a stereo mp3: caller left, agent right.

    What `advance` has read is not read again. The file appears whole or not at all. A capture with no packet of either
    side gives no file. Raises OSError when the capture can't be read or the file can't be written.
    """
    reading = _begun.pop(job.pcap, None)
    if reading is not None and not reading.fits(job):
        reading.abandon()
        reading = None
    reading = reading or _Reading(job)
    try:
        reading.advance(job)
        return reading.finish()
    except BaseException:
        reading.abandon()
        raise


class _Reading:
    """A capture, as far as it was read."""

    def __init__(self, job: CaptureJob) -> None:
        self._job = job
        self._caller = _Side(_CALLER, {**STATIC_TYPES, **job.caller_codecs})
        self._agent = _Side(_AGENT, {**STATIC_TYPES, **job.agent_codecs})
        self._by_port = dict.fromkeys(job.caller_ports, self._caller) | dict.fromkeys(job.agent_ports, self._agent)
        self._capture = pcap.Capture(job.pcap)
        self._writer: StereoWriter | None = None

    def fits(self, job: CaptureJob) -> bool:
        """Tell whether the job is the one that was begun; its end alone may have moved."""
        return replace(job, ended_at=self._job.ended_at) == self._job

    def advance(self, job: CaptureJob) -> None:
        """Take the packets that have come since."""
        for datagram in self._capture.new():
            side = self._by_port.get(datagram.port) if job.began_at <= datagram.at <= job.ended_at else None
            packet = rtp.parse(datagram.payload) if side else None
            codec = side.codec_of(packet) if side and packet else None
            if side is None or packet is None or codec is None:
                continue
            if self._writer is None and job.recording is not None:
                self._writer = StereoWriter(job.recording)
                self._announce(self._writer)
            side.take(packet, codec, datagram.at, self._writer)

    def _announce(self, writer: StereoWriter) -> None:
        """Begin the recording with what the edge said; all else of the call comes behind that."""
        announced = self._job.announcement
        if announced is None:
            return
        writer.since_start(announced.at)
        with contextlib.suppress(FileNotFoundError), wave.open(str(announced.sound)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
            samples = resampled(samples, file.getframerate())
            for position in range(0, len(samples), SAMPLE_RATE_HZ):
                writer.place(_AGENT, position, samples[position : position + SAMPLE_RATE_HZ])

    def finish(self) -> MediaResult:
        """Finish the recording; say what there was."""
        self._capture.close()
        if self._writer is not None:
            self._writer.finish()
        recording = self._job.recording if self._writer else None
        return MediaResult(
            caller=self._caller.direction(),
            agent=self._agent.direction(),
            caller_sound=self._caller.sound(),
            agent_sound=self._agent.sound(),
            recording_seconds=self._writer.seconds if self._writer else 0.0,
            recording_bytes=recording.stat().st_size if recording else 0,
            problems=tuple(sorted(self._caller.problems | self._agent.problems)),
        )

    def abandon(self) -> None:
        """Leave nothing open, and no file."""
        self._capture.close()
        if self._writer is not None:
            self._writer.abandon()


class _Side:
    """The audio that one side sent: one stream an SSRC."""

    def __init__(self, channel: int, types: dict[int, str]) -> None:
        self._channel, self._types = channel, types
        self._streams: dict[int, _Stream] = {}
        self._codecs: Counter[str] = Counter()
        self._first_at: float | None = None
        self.problems: set[str] = set()

    def codec_of(self, packet: rtp.Packet) -> Codec | None:
        """Return how to read the packet, or None for what is no audio that we know."""
        codec = CODECS.get(self._types.get(packet.payload_type, ""))
        if codec is None and packet.payload_type < 96:  # dynamic, not named: telephone-events and such (RFC 4733)
            self.problems.add(f"payload type {packet.payload_type} can't be decoded")
        return codec

    def take(self, packet: rtp.Packet, codec: Codec, at: float, writer: StereoWriter | None) -> None:
        """Count the packet and put its sound into the recording, if there is one."""
        stream = self._streams.get(packet.ssrc)
        if stream is None:
            if len(self._streams) >= _MOST_STREAMS:
                return
            stream = self._streams[packet.ssrc] = _Stream(codec)
        self._codecs[codec.name] += 1
        self._first_at = at if self._first_at is None else min(at, self._first_at)
        stream.take(packet, at, codec, self._channel, writer)

    def sound(self) -> Sound | None:
        """Return what there was to hear of this side."""
        if self._first_at is None:
            return None
        streams = self._streams.values()
        return Sound(
            first_at=self._first_at,
            seconds=sum(stream.seconds for stream in streams),
            loud_seconds=sum(stream.loud_seconds for stream in streams),
        )

    def direction(self) -> Direction | None:
        """Sum up every stream of this side."""
        receptions = [stream.reception for stream in self._streams.values()]
        packets, expected = sum(r.packets for r in receptions), sum(r.expected for r in receptions)
        if not packets:
            return None
        lost = sum(r.lost for r in receptions)
        loss_percent = 100 * lost / max(1, expected)
        jitter_ms = 1000 * sum(r.jitter_seconds * r.packets for r in receptions) / packets
        score = quality.mean_opinion_score(quality.rating(loss_percent, quality.playout_delay_ms(jitter_ms)))
        return Direction(
            packets=packets,
            lost=lost,
            loss_percent=round(loss_percent, 2),
            jitter_ms=round(jitter_ms, 2),
            mos=round(score, 2),
            codec=self._codecs.most_common(1)[0][0],
        )


class _Stream:
    """One SSRC: counted, decoded, and placed by its timestamps, which its arrivals hold to the wall clock."""

    def __init__(self, codec: Codec) -> None:
        self.reception = rtp.Reception(codec.clock_rate_hz)
        self._decoders = {codec.name: codec.decoder()}
        self._offset: float | None = None
        self._before = 0
        self.seconds = self.loud_seconds = 0.0

    def take(self, packet: rtp.Packet, at: float, codec: Codec, channel: int, writer: StereoWriter | None) -> None:
        timestamp = self.reception.take(packet, at)
        if timestamp is None:
            return
        decode = self._decoders.setdefault(codec.name, codec.decoder())
        try:
            samples = decode(packet.payload)
        except av.FFmpegError:  # what came is no packet of that codec
            return
        self._listen(samples, codec)
        if writer is None:
            return
        seconds = self._place(timestamp / codec.clock_rate_hz, writer.since_start(at))
        if codec.sample_rate_hz * 2 == SAMPLE_RATE_HZ and len(samples):
            last = int(samples[-1])
            samples = widen(samples, self._before)
            self._before = last
        writer.place(channel, round(seconds * SAMPLE_RATE_HZ), samples)

    def _listen(self, samples: Samples, codec: Codec) -> None:
        if not len(samples):
            return
        length = len(samples) / codec.sample_rate_hz
        self.seconds += length
        wide = samples.astype(np.float32)
        if float(np.dot(wide, wide)) > _IDLE_LINE**2 * len(wide):
            self.loud_seconds += length

    def _place(self, by_timestamp: float, by_arrival: float) -> float:
        if self._offset is None or abs(by_timestamp + self._offset - by_arrival) > _RESYNC_SECONDS:
            self._offset = by_arrival - by_timestamp
        return by_timestamp + self._offset
