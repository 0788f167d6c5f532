"""What was wrong with a call's audio, heard in its packets or counted by the relay."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_tools import START, Sent, mu_law, talk, tone, write_pcap
from voxpria_edge.media import issues, rtcp
from voxpria_edge.media.job import CaptureJob, MediaResult
from voxpria_edge.media.process import process

pytestmark = pytest.mark.unit

CALLER, AGENT = 40000, 40002


def quiet(port: int, seconds: float, *, level: float = 0.0, ssrc: int = 1) -> list[Sent]:
    """A side that sends silence, or a hum of this share of a tone's loudness."""
    payload = mu_law((tone(440, seconds) * level).astype("int16"))
    packets = talk(440, seconds, port, ssrc=ssrc)
    return [
        Sent(p.at, p.port, p.sequence, p.timestamp, payload[i * 160 : i * 160 + 160], ssrc=ssrc)
        for i, p in enumerate(packets)
    ]


def measured(folder: Path, packets: list[Sent]) -> MediaResult:
    return process(
        CaptureJob(
            pcap=write_pcap(folder / "call.pcap", packets),
            caller_ports=frozenset({CALLER}),
            agent_ports=frozenset({AGENT}),
            began_at=START,
            ended_at=START + 60,
        )
    )


def found(folder: Path, packets: list[Sent], *, seconds: float = 10) -> tuple[str, ...]:
    result = measured(folder, packets)
    return issues.heard(START, START + seconds, result.caller_sound, result.agent_sound)


def test_a_conversation_has_none(tmp_path: Path) -> None:
    assert found(tmp_path, [*talk(440, 4, CALLER), *talk(900, 4, AGENT, ssrc=2)]) == ()


def test_one_way_audio(tmp_path: Path) -> None:
    assert found(tmp_path, talk(440, 4, CALLER)) == ("one_way_audio",)
    assert found(tmp_path, talk(440, 4, AGENT)) == ("one_way_audio",)
    assert found(tmp_path, []) == ("no_audio",)


def test_silence_is_known_from_speech_and_from_a_hum(tmp_path: Path) -> None:
    assert found(tmp_path, [*talk(440, 4, CALLER), *quiet(AGENT, 4, ssrc=2)]) == ("agent_silent",)
    assert found(tmp_path, [*quiet(CALLER, 4, level=0.005), *talk(440, 4, AGENT, ssrc=2)]) == ("caller_silent",)
    assert found(tmp_path, [*quiet(CALLER, 4, level=0.1), *talk(440, 4, AGENT, ssrc=2)]) == ()


def test_a_word_in_a_long_silence_is_no_silence(tmp_path: Path) -> None:
    packets = [*quiet(AGENT, 4, ssrc=2), *talk(440, 0.5, AGENT, start=5, sequence=400, ssrc=3)]
    assert found(tmp_path, [*talk(440, 4, CALLER), *packets]) == ()


def test_late_audio(tmp_path: Path) -> None:
    packets = [*talk(440, 4, CALLER), *talk(440, 2, AGENT, start=4, ssrc=2)]
    assert found(tmp_path, packets) == ("agent_audio_late",)
    sound = measured(tmp_path, packets).agent_sound
    assert sound is not None
    assert sound.first_at == pytest.approx(START + 4)


def test_nothing_is_wrong_with_a_call_that_was_over_at_once(tmp_path: Path) -> None:
    assert found(tmp_path, [], seconds=0.5) == ()


AVERAGE = {"packet loss": 2, "jitter": 5, "round-trip time": 80_000, "samples": 3}
RTP, RTCP = {"flags": ["RTP"], "SSRC": 1, "stats": {"packets": 300}}, {"flags": ["RTCP"], "stats": {"packets": 3}}
QUIET = {"flags": ["RTP"], "SSRC": 2, "stats": {"packets": 0}}
SESSION: dict[str, Any] = {
    "SSRC": {"2": {"cumulative loss": 7, "average MOS": AVERAGE}},
    "tags": {
        "from": {"medias": [{"type": "audio", "codec": "PCMU/8000", "streams": [RTP, RTCP]}]},
        "to": {"medias": [{"type": "audio", "codec": "G722/8000", "streams": [QUIET]}]},
    },
}
"""A query's answer, cut down."""


def test_the_endpoints_own_reports_are_read() -> None:
    relayed = rtcp.relayed(SESSION, "from")
    assert relayed.caller is not None
    assert (relayed.caller.packets, relayed.caller.lost, relayed.caller.codec) == (300, 7, "PCMU")
    assert (relayed.caller.loss_percent, relayed.caller.jitter_ms) == (2, 5)
    # G.107 with loss of 2 % on G.711 (Bpl 25.1) and no delay that is heard: R = 93.2 - 95 * 2 / 27.1
    assert relayed.caller.mos == pytest.approx(4.25, abs=0.03)
    assert relayed.agent is None, "the caller has reported nothing"
    assert (relayed.caller_packets, relayed.agent_packets) == (300, 0)
    assert issues.missing(9, has_caller=True, has_agent=False) == ("one_way_audio",)


_json = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["medias", "streams", "SSRC", "stats", "type", "flags", "1", "from"]), inner)
    ),
)


@given(st.dictionaries(st.sampled_from(["tags", "SSRC", "totals"]), _json))
def test_whatever_rtpengine_says_is_read(session: dict[str, Any]) -> None:
    rtcp.relayed(session, "from")
