"""What the endpoints' own reports (RTCP, RFC 3550 section 6.4) and rtpengine's counters say of a session. Pure.

For calls whose packets are not captured. The figures on a side are what the other side reported of its packets.
"""

import math
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
    """Over all reports of one sender: round trip in microseconds, jitter in milliseconds, loss in percent, cut off."""

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


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """A party's audio."""

    packets: int = 0
    ssrc: int | None = None
    codec: str = ""


def relayed(answer: Mapping[str, Any], from_tag: str, *, is_outbound: bool = False) -> Relayed:
    """Read rtpengine's answer to a query; the caller is who has this tag, or of an outbound call the agent is.

    One that makes no sense tells nothing.
    """
    try:
        session = msgspec.convert(answer, _Session)
    except msgspec.ValidationError:
        return Relayed()
    caller, agent = _Sent(), _Sent()
    for tag, party in session.tags.items():
        if (tag == from_tag) is not is_outbound:
            caller = _sent(party)
        else:
            agent = _sent(party)
    return Relayed(
        caller=_direction(session, caller, agent.ssrc),
        agent=_direction(session, agent, caller.ssrc),
        caller_packets=caller.packets,
        agent_packets=agent.packets,
    )


def _sent(party: _Party) -> _Sent:
    """Return the audio that a party sent, by the first of its streams that is any."""
    streams = [
        (stream, media.codec)
        for media in party.medias
        for stream in (media.streams if media.type == "audio" else ())
        if "RTP" in stream.flags
    ]
    packets = sum(stream.stats.packets for stream, _ in streams)
    first = next(((stream.ssrc, codec) for stream, codec in streams if stream.ssrc is not None), (None, ""))
    return _Sent(packets=packets, ssrc=first[0], codec=first[1].partition("/")[0])


def _most_lost(packets: int, loss_percent: int) -> int:
    """Return how many packets can have been lost, by the average of the reports, each cut off to a whole number.

    rtpengine adds to what was reported last what the reporter's own packets have lost since then.
    """
    return math.ceil(packets * (loss_percent + 2) / 100)


def _direction(session: _Session, sent: _Sent, reporter: int | None) -> Direction | None:
    """Return how a side's packets fared: what the other side reported, under whose SSRC rtpengine keeps it."""
    report = session.reports.get(str(reporter))
    if report is None or report.average.samples < 1:
        return None
    average = report.average
    delay_ms = average.round_trip / 2000 + quality.playout_delay_ms(average.jitter)
    return Direction(
        packets=sent.packets,
        lost=min(report.lost, _most_lost(sent.packets, average.loss)),
        loss_percent=float(average.loss),
        jitter_ms=float(average.jitter),
        mos=round(quality.mean_opinion_score(quality.rating(average.loss, delay_ms)), 2),
        codec=sent.codec,
    )
