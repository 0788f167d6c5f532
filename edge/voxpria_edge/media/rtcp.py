"""What the endpoints' own reports (RTCP, RFC 3550 section 6.4) and rtpengine's counters say of a session. Pure.

For calls whose packets are not captured. The figures on a side are what the other side reported of its packets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from voxpria_routing.events import Direction

from voxpria_edge.media import quality


@dataclass(frozen=True, kw_only=True)
class Relayed:
    """What went through a session."""

    caller: Direction | None = None
    """None where nobody reported."""
    agent: Direction | None = None
    caller_packets: int = 0
    agent_packets: int = 0


class _Average(msgspec.Struct, frozen=True):
    """Over all reports on a stream; the round trip in microseconds, jitter in milliseconds, loss in percent."""

    samples: int = 0
    round_trip: int = msgspec.field(default=0, name="round-trip time")
    jitter: int = 0
    loss: int = msgspec.field(default=0, name="packet loss")


class _Report(msgspec.Struct, frozen=True):
    lost: int = msgspec.field(default=0, name="cumulative loss")
    average: _Average = msgspec.field(default=_Average(), name="average MOS")


class _Counters(msgspec.Struct, frozen=True):
    packets: int = 0


class _Stream(msgspec.Struct, frozen=True):
    flags: tuple[str, ...] = ()
    ssrc: int | None = msgspec.field(default=None, name="SSRC")
    stats: _Counters = _Counters()


class _Media(msgspec.Struct, frozen=True):
    type: str = ""
    codec: str = ""
    streams: tuple[_Stream, ...] = ()


class _Party(msgspec.Struct, frozen=True):
    medias: tuple[_Media, ...] = ()


class _Session(msgspec.Struct, frozen=True):
    tags: dict[str, _Party] = {}
    reports: dict[str, _Report] = msgspec.field(default_factory=dict, name="SSRC")


def relayed(answer: Mapping[str, Any], from_tag: str, *, is_outbound: bool = False) -> Relayed:
    """Read rtpengine's answer to a query; the caller is who has this tag, or of an outbound call the agent is.

    One that makes no sense tells nothing.
    """
    try:
        session = msgspec.convert(answer, _Session)
    except msgspec.ValidationError:
        return Relayed()
    caller: tuple[int, Direction | None] = (0, None)
    agent: tuple[int, Direction | None] = (0, None)
    for tag, party in session.tags.items():
        if (tag == from_tag) is not is_outbound:
            caller = _sent(session, party)
        else:
            agent = _sent(session, party)
    return Relayed(caller=caller[1], agent=agent[1], caller_packets=caller[0], agent_packets=agent[0])


def _sent(session: _Session, party: _Party) -> tuple[int, Direction | None]:
    """Return how many packets of audio a party sent, and how they fared."""
    packets, direction = 0, None
    for media in party.medias:
        for stream in media.streams if media.type == "audio" else ():
            if "RTP" in stream.flags:
                packets += stream.stats.packets
                direction = direction or _direction(session, stream, media.codec.partition("/")[0])
    return packets, direction


def _direction(session: _Session, stream: _Stream, codec: str) -> Direction | None:
    report = session.reports.get(str(stream.ssrc))
    if report is None or report.average.samples < 1:
        return None
    average = report.average
    delay_ms = average.round_trip / 2000 + quality.playout_delay_ms(average.jitter)
    return Direction(
        packets=stream.stats.packets,
        lost=report.lost,
        loss_percent=float(average.loss),
        jitter_ms=float(average.jitter),
        mos=round(quality.mean_opinion_score(quality.rating(average.loss, delay_ms)), 2),
        codec=codec,
    )
