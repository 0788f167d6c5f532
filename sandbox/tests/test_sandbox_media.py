"""G.711, RTP, RTCP and the pacer."""

import asyncio
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_sandbox.media import codecs, g711, rtcp, rtp, srtp
from voxpria_sandbox.media.pacer import FRAME_SECONDS, Pacer
from voxpria_sandbox.media.stream import MediaStream, SpeechMeter
from voxpria_sandbox.sip import sdp
from voxpria_sip.uri import MalformedError


def samples(*values: int) -> g711.Samples:
    return np.array(values, dtype=np.int16)


@pytest.mark.unit
def test_codes_of_the_standard() -> None:
    # ITU-T G.711 tables 1 and 2: the ends, the middle, and the largest values of each law
    assert list(g711.decode("PCMU", b"\x00\x80\xff\x7f")) == [-32124, 32124, 0, 0]
    assert list(g711.decode("PCMA", b"\x2a\xaa\xd5\x55")) == [-32256, 32256, 8, -8]
    assert g711.encode("PCMU", samples(0, 32767, -32768)) in (b"\xff\x80\x00", b"\x7f\x80\x00")
    assert g711.encode("PCMA", samples(8, 32767, -32768)) == b"\xd5\xaa\x2a"


@pytest.mark.unit
@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
def test_every_code_survives_the_way_there_and_back(codec: g711.Codec) -> None:
    meant = g711.decode(codec, bytes(range(256)))
    assert list(g711.decode(codec, g711.encode(codec, meant))) == list(meant)
    assert len(set(meant.tolist())) in (255, 256)


@pytest.mark.unit
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200))
def test_every_sample_gets_its_nearest_code(values: list[int]) -> None:
    for codec in ("PCMU", "PCMA"):
        levels = g711.decode(codec, bytes(range(256))).astype(int)
        for value, heard in zip(values, g711.decode(codec, g711.encode(codec, samples(*values))), strict=True):
            assert abs(int(heard) - value) == np.abs(levels - value).min()


@pytest.mark.unit
@pytest.mark.parametrize(("name", "most_lost_db"), [("PCMU", 3), ("PCMA", 3), ("G722", 3), ("OPUS", 6)])
def test_a_tone_survives_each_codec(name: codecs.Name, most_lost_db: float) -> None:
    sender, receiver = codecs.coder(name), codecs.coder(name)
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(g711.RATE) / g711.RATE)).astype(np.int16)
    payloads = [p for at in range(0, len(tone), 160) for p in sender.encode(tone[at : at + 160])]
    heard = np.concatenate([receiver.decode(payload) for payload in payloads])
    assert len(heard) == pytest.approx(len(tone), rel=0.05)
    spectrum = np.abs(np.fft.rfft(heard[-4000:].astype(float)))
    assert spectrum.argmax() * g711.RATE / 4000 == pytest.approx(440, abs=3)
    assert np.std(heard[-4000:].astype(float)) > np.std(tone) * 10 ** (-most_lost_db / 20)


@pytest.mark.unit
@given(st.sampled_from(["G722", "OPUS"]), st.binary(max_size=300))
def test_any_payload_is_sound_or_nothing(name: codecs.Name, payload: bytes) -> None:
    assert codecs.coder(name).decode(payload).dtype == np.int16


@pytest.mark.unit
@given(st.integers(0, 127), st.integers(0, 65535), st.integers(0, 2**32 - 1), st.binary(max_size=200), st.booleans())
def test_every_packet_that_is_written_is_read_again(
    kind: int, sequence: int, timestamp: int, payload: bytes, is_marked: bool
) -> None:
    packet = rtp.Packet(kind, sequence, timestamp, 77, payload, is_marked)
    assert rtp.parse(bytes(packet)) == packet


@pytest.mark.unit
@given(st.binary(max_size=120))
def test_any_bytes_are_media_or_refused(data: bytes) -> None:
    for parse in (rtp.parse, rtcp.sender_report_time):
        try:
            parse(data)
        except MalformedError:
            continue


@pytest.mark.unit
def test_padding_contributors_and_extension_are_dropped() -> None:
    head = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 1, 0, 1, 2, 3)
    packet = rtp.parse(head + b"cccc" + struct.pack("!HH", 1, 1) + b"eeee" + b"payload" + b"\0\0\3")
    assert packet.payload == b"payload"


@pytest.mark.unit
def test_loss_and_jitter_as_rfc_3550_counts_them() -> None:
    reception = rtcp.Reception(5, 65530)
    for step in range(20):
        if step in (4, 5):
            continue
        late = 0.010 if step == 10 else 0.0
        reception.note(rtp.Packet(0, (65530 + step) & 0xFFFF, 160 * step, 5, b""), 100 + 0.02 * step + late)
    reception.last_report, reception.last_report_at = 0xABCD, 99.0
    ssrc, lost, highest, jitter, last, delay = struct.unpack("!IIIIII", reception.block(101.0))
    assert (ssrc, lost >> 24, lost & 0xFFFFFF) == (5, 256 * 2 // 20, 2)
    assert (highest, last, delay) == (65530 + 19, 0xABCD, 2 * 65536)
    assert 0 < jitter < 10
    _, lost, *_ = struct.unpack("!IIIIII", reception.block(101.0))
    assert lost >> 24 == 0
    assert lost & 0xFFFFFF == 2


@pytest.mark.unit
def test_a_report_tells_its_time_and_ends_with_bye() -> None:
    sent = rtcp.Sent(ssrc=9, packets=50, octets=8000, timestamp=1234)
    data = rtcp.report(sent, "sandbox@127.0.0.2", 1_700_000_000.5, b"", is_last=True)
    assert len(data) % 4 == 0
    assert rtcp.sender_report_time(data) == (9, ((1_700_000_000 + 2208988800) & 0xFFFF) << 16 | 0x8000)
    assert data.endswith(struct.pack("!BBHI", 0x81, 203, 1, 9))
    unsent = rtcp.Sent(ssrc=9, packets=0, octets=0, timestamp=0)
    assert rtcp.report(unsent, "a", 0, b"", is_last=False)[1] == 201


@pytest.mark.unit
def test_only_what_is_loud_counts_as_speech() -> None:
    meter = SpeechMeter()
    meter.note(samples(*[8, -8] * 80))
    assert meter.seconds == 0
    meter.note(samples(*[3000, -3000] * 80))
    assert meter.seconds == pytest.approx(0.02)


class Ticked:
    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.times: list[float] = []

    def tick(self, number: int) -> None:
        self.numbers.append(number)
        self.times.append(asyncio.get_running_loop().time())


async def test_the_pacer_is_steady_over_a_stall_and_sleeps_when_idle() -> None:
    pacer, stream = Pacer(), Ticked()
    pacer.add(stream)
    await asyncio.sleep(0.3)
    before_stall = len(stream.numbers)
    time.sleep(1)  # noqa: ASYNC251  (the stall)
    await asyncio.sleep(0.2)
    pacer.remove(stream)
    await asyncio.sleep(0.05)
    count = len(stream.numbers)
    assert pacer._timer is None
    assert stream.numbers == sorted(set(stream.numbers))
    gaps = [b - a for a, b in zip(stream.numbers, stream.numbers[1:], strict=False)]
    assert max(gaps) > 1, "frames that are too late are skipped"
    elapsed = stream.times[-1] - stream.times[0]
    assert abs((stream.numbers[-1] - stream.numbers[0]) * FRAME_SECONDS - elapsed) < 0.5
    assert 5 <= before_stall <= 30
    pacer.add(stream)
    await asyncio.sleep(0.05)
    pacer.remove(stream)
    assert stream.numbers[count] == stream.numbers[count - 1] + 1


async def test_encrypted_streams_understand_each_other_and_nobody_else() -> None:
    pacer = Pacer()
    streams = [MediaStream("127.0.0.1", pacer) for _ in range(2)]
    sessions = []
    for stream in streams:
        await stream.open()
        sessions.append(sdp.Session("127.0.0.1", stream.port))
    keys = [sdp.Key(1, session.secret) for session in sessions]
    sides = [
        sdp.Audio("127.0.0.1", stream.port, ("PCMU",), (0,), None, key=key)
        for stream, key in zip(streams, keys, strict=True)
    ]
    streams[0].connect(sides[1], sessions[0].secret)
    streams[1].connect(sides[0], sessions[1].secret)
    await streams[0].play((8000 * np.sin(np.arange(8000) / 3)).astype(np.int16))
    async with asyncio.timeout(10):
        while streams[1].heard_speech_seconds < 0.9:
            await asyncio.sleep(0.02)
    for stream in streams:
        stream.close()
    clear = bytes(rtp.Packet(0, 1, 1, 5, bytes(160)))
    session = srtp.inbound(sessions[0].secret)
    assert srtp.opened(session, srtp.outbound(sessions[0].secret).protect(clear)) == clear
    for stranger in (clear, srtp.outbound(sessions[1].secret).protect(clear)):
        with pytest.raises(MalformedError):
            srtp.opened(session, stranger)
