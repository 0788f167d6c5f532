import dataclasses
import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_tools import PER_PACKET, START, Sent, decode, loudest_hertz, loudness, talk, write_pcap
from voxpria_edge.media import pcap, quality, rtp
from voxpria_edge.media.job import CaptureJob, MediaResult
from voxpria_edge.media.process import advance, process

pytestmark = pytest.mark.unit

CALLER, AGENT = 40000, 40002


def run(folder: Path, packets: list[Sent], *, record: bool = True) -> MediaResult:
    job = CaptureJob(
        pcap=write_pcap(folder / "call.pcap", packets),
        caller_ports=frozenset({CALLER}),
        agent_ports=frozenset({AGENT}),
        began_at=START,
        ended_at=START + 60,
        recording=folder / "call.mp3" if record else None,
    )
    return process(job)


def test_the_caller_is_left_the_agent_right_and_both_keep_their_time(tmp_path: Path) -> None:
    result = run(tmp_path, [*talk(440, 4, CALLER), *talk(1000, 2, AGENT, start=2, ssrc=2)])
    (left, right), rate = decode(tmp_path / "call.mp3")
    assert loudest_hertz(left, rate) == pytest.approx(440, abs=2)
    assert loudest_hertz(right, rate) == pytest.approx(1000, abs=2)
    assert loudness(right[: int(1.8 * rate)]) < loudness(right[int(2.2 * rate) : 4 * rate]) / 50
    assert result.recording_seconds == pytest.approx(4, abs=0.05)
    assert result.recording_bytes == (tmp_path / "call.mp3").stat().st_size
    assert not list(tmp_path.glob("*.part"))
    assert result.caller is not None
    assert (result.caller.packets, result.caller.lost, result.caller.codec) == (200, 0, "PCMU")
    assert result.caller.mos == pytest.approx(4.41, abs=0.01)


@pytest.mark.parametrize("cuts", [(0.5,), (0.1, 0.101, 0.4, 0.9), tuple(i / 40 for i in range(40))])
def test_a_capture_read_while_it_grows_gives_what_it_gives_at_its_end(tmp_path: Path, cuts: tuple[float, ...]) -> None:
    """Also where what is there ends within a header or a packet."""
    packets = [*talk(440, 4, CALLER), *talk(1000, 2, AGENT, start=2, ssrc=2)]
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", packets)
    data = (tmp_path / "whole" / "call.pcap").read_bytes()
    growing = tmp_path / "growing.pcap"
    job = CaptureJob(
        pcap=growing,
        caller_ports=frozenset({CALLER}),
        agent_ports=frozenset({AGENT}),
        began_at=START,
        ended_at=START + 60,
        recording=tmp_path / "call.mp3",
    )
    for share in cuts:
        growing.write_bytes(data[: int(share * len(data))])
        advance(dataclasses.replace(job, ended_at=START + 30))
    growing.write_bytes(data)
    assert process(job) == whole
    assert (tmp_path / "call.mp3").read_bytes() == (tmp_path / "whole" / "call.mp3").read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_a_side_that_is_known_late_is_heard_from_its_first_packet(tmp_path: Path) -> None:
    whole = run(tmp_path, [*talk(440, 2, CALLER), *talk(1000, 2, AGENT, ssrc=2)])
    job = CaptureJob(
        pcap=tmp_path / "call.pcap",
        caller_ports=frozenset({CALLER}),
        agent_ports=frozenset({AGENT}),
        began_at=START,
        ended_at=START + 60,
        recording=tmp_path / "again.mp3",
    )
    advance(dataclasses.replace(job, agent_ports=frozenset({1})))
    assert process(job) == whole
    (_, right), rate = decode(tmp_path / "again.mp3")
    assert loudest_hertz(right, rate) == pytest.approx(1000, abs=2)


def test_lost_packets_are_counted_and_lower_the_score(tmp_path: Path) -> None:
    chosen = random.Random(7)
    packets = [p for p in talk(440, 60, CALLER, sequence=65000) if chosen.random() > 0.05]
    result = run(tmp_path, packets, record=False)
    assert result.caller is not None
    assert result.caller.lost == 3000 - len(packets) - _cut_off(packets)
    assert result.caller.loss_percent == pytest.approx(5, abs=1)
    assert 3.3 < result.caller.mos < 4.2
    assert result.agent is None


def _cut_off(packets: list[Sent]) -> int:
    """Packets lost before the first or after the last one: no receiver can know of them."""
    return packets[0].timestamp // PER_PACKET + (2999 - packets[-1].timestamp // PER_PACKET)


def test_jitter_is_what_was_put_in(tmp_path: Path) -> None:
    chosen = random.Random(7)
    late = [dataclasses.replace(p, at=p.at + chosen.choice((0, 0.01))) for p in talk(440, 30, AGENT)]
    result = run(tmp_path, late, record=False)
    assert result.agent is not None
    # two of four pairs of neighbours differ by 10 ms: the mean of |D| is 5 ms
    assert result.agent.jitter_ms == pytest.approx(5, abs=0.5)
    assert result.agent.lost == 0


def test_reordered_and_doubled_packets_are_no_loss(tmp_path: Path) -> None:
    packets = talk(440, 4, CALLER)
    swapped = [dataclasses.replace(p, at=p.at + (0.03 if i % 10 == 3 else 0)) for i, p in enumerate(packets)]
    result = run(tmp_path, [*swapped, *packets[50:60]])
    assert result.caller is not None
    assert (result.caller.packets, result.caller.lost) == (200, 0)
    (left, _), rate = decode(tmp_path / "call.mp3")
    assert loudest_hertz(left, rate) == pytest.approx(440, abs=2)


def test_a_sender_that_starts_anew_is_no_loss(tmp_path: Path) -> None:
    result = run(tmp_path, [*talk(440, 2, CALLER), *talk(440, 2, CALLER, start=2, sequence=50000, ssrc=9)])
    assert result.caller is not None
    assert (result.caller.packets, result.caller.lost) == (200, 0)
    again = run(tmp_path, [*talk(440, 2, CALLER), *talk(440, 2, CALLER, start=2, sequence=50000)])
    assert again.caller is not None
    assert (again.caller.packets, again.caller.lost) == (200, 0)


def test_a_call_without_audio_has_no_recording(tmp_path: Path) -> None:
    result = run(tmp_path, [])
    assert result == MediaResult(caller=None, agent=None)
    assert not (tmp_path / "call.mp3").exists()


def test_telephone_events_and_rtcp_are_no_audio(tmp_path: Path) -> None:
    event = Sent(0.5, CALLER, 9, 0, bytes(4), payload_type=101)
    report = Sent(0.6, CALLER, 0, 0, bytes(20), payload_type=200)
    result = run(tmp_path, [event, report])
    assert result.caller is None
    assert result.problems == ()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_capture_never_breaks_it(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(write_pcap(tmp_path / "whole.pcap", talk(440, 0.2, CALLER)).read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20)):
        whole[position] = data.draw(st.integers(0, 255))
    (tmp_path / "hurt.pcap").write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    job = CaptureJob(
        pcap=tmp_path / "hurt.pcap",
        caller_ports=frozenset({CALLER}),
        agent_ports=frozenset({AGENT}),
        began_at=START,
        ended_at=START + 60,
        recording=tmp_path / "hurt.mp3",
    )
    process(job)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    packet = rtp.parse(data)
    assert packet is None or len(packet.payload) <= len(data) - 12


def test_big_endian_and_nanosecond_files_are_read(tmp_path: Path) -> None:
    udp = struct.pack(">HHHH", 1, AGENT, 12, 0) + b"data"
    frame = bytes(12) + b"\x08\x00" + struct.pack(">B8xBHII", 0x45, 17, 0, 1, 1) + udp
    for order, magic, unit in ((">", 0xA1B2C3D4, 1e6), ("<", 0xA1B23C4D, 1e9)):
        path = tmp_path / "x.pcap"
        head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
        path.write_bytes(head + struct.pack(f"{order}IIII", 5, int(unit / 2), len(frame), len(frame)) + frame)
        (datagram,) = pcap.Capture(path).new()
        assert (datagram.at, datagram.port, datagram.payload) == (5.5, AGENT, b"data")


def test_the_e_model_gives_its_published_values() -> None:
    assert quality.mean_opinion_score(quality.rating(0)) == pytest.approx(4.41, abs=0.005)
    # G.107 table B.1: R to MOS
    for r, mos in ((90, 4.34), (80, 4.03), (70, 3.60), (60, 3.10), (50, 2.58)):
        assert quality.mean_opinion_score(r) == pytest.approx(mos, abs=0.01)
    assert quality.delay_impairment(100) == 0
    assert quality.delay_impairment(150) == pytest.approx(0.2, abs=0.3)
    assert quality.delay_impairment(400) > 20
    # G.113: at Ppl = Bpl half of what is left of 95 is lost
    assert quality.loss_impairment(25.1) == pytest.approx(47.5)
