"""What is spoken before a call is recorded: to the caller or callee, into the recording, and else there is none."""

import contextlib
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import uvloop
from media_tools import decode, loudest_hertz, loudness
from routes_of_tests import AGENT, CARRIER, number_on, trunk_to
from rtp_peer import G722, OPUS, PCMU, Codec, RtpPeer, rtp_peer
from running_edge import Call, RunningEdge, free_port, until
from sipp_tool import Sipp, header, sipp
from test_media import SUITE, SUITES, hear_each_other, offer_to
from test_placed_calls import busy, order
from voxpria_edge.recordings.announcements import SpeechError, _speak, name_of
from voxpria_routing.decision import Explanation
from voxpria_routing.edge_api import HangUp
from voxpria_routing.events import Answered, Attempted, Recorded, RecordingFailed, Timed
from voxpria_routing.snapshot import Announcement, Number
from voxpria_routing.trace import Trace

SHORT = Announcement(text="This call is recorded.", language="en-US")
LONG = Announcement(text="This call is recorded, and it takes us a very long time to tell you so. " * 4, language="en")
SPOKEN_CORRELATION = 0.7
"""How alike two sounds are, from 0 to 1, if one is the other through two codecs; different speech is below 0.3."""


def routes(
    edge: RunningEdge,
    number: str,
    announcement: Announcement | None,
    port: int,
    out_port: int = 1,
    encryption: str = "allowed",
) -> Number:
    """Give the edge a number whose carrier's trunk is recorded and has this announcement."""
    id_ = number[1:]
    policy = {"is_recorded": True, "announcement": announcement, "media_encryption": encryption}
    carrier = trunk_to(out_port, id=f"trunk_c_{id_}", name="Carrier", **policy)
    agent = trunk_to(port, id=f"trunk_a_{id_}", name="Agent", provider="elevenlabs", allowed_addresses=())
    held = number_on(carrier, number, agent_trunk_id=agent.id)
    edge.route([carrier, agent], [held])
    return held


def sound_of(edge: RunningEdge, announcement: Announcement) -> npt.NDArray[np.float64]:
    """Return the announcement as the edge speaks it, at 8 kHz, once it has been made."""
    path = edge.folder / "edge" / "announcements" / name_of(announcement)
    until("the announcement is made", path.exists)
    return wav(path)


def wav(path: Path) -> npt.NDArray[np.float64]:
    """Return a WAV's sound at 8 kHz."""
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        return at_8000(samples.astype(float), file.getframerate())


def at_8000(samples: npt.NDArray[np.float64], rate: int) -> npt.NDArray[np.float64]:
    length = len(samples) * 8000 // rate
    return np.fft.irfft(np.fft.rfft(samples)[: length // 2 + 1], length) * length / max(1, len(samples))


def likeness(heard: npt.NDArray[np.float64], sought: npt.NDArray[np.float64]) -> float:
    """Return how much of `sought` is somewhere in `heard`: the best normalised correlation."""
    if len(heard) < len(sought):
        return 0.0
    size = len(heard) + len(sought)
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sought, size)), size)
    energy = np.concatenate(([0.0], np.cumsum(heard**2)))
    energies = energy[len(sought) :] - energy[: -len(sought)]
    found = products[: len(energies)] / np.sqrt(np.maximum(energies, 1.0) * (sought**2).sum())
    return float(found.max())


def heard_by(peer: RtpPeer) -> npt.NDArray[np.float64]:
    sound = [*peer._sound]
    return at_8000(np.concatenate(sound).astype(float), peer.codec.rate) if sound else np.zeros(0)


@contextlib.contextmanager
def called_in(
    edge: RunningEdge, folder: Path, number: str, port: int, caller: RtpPeer, agent: RtpPeer
) -> Iterator[tuple[Sipp, Sipp]]:
    """Have a carrier call in, and let both talk as soon as they can; the edge is asked to hang up on the way out."""
    if caller.suite:
        caller.tag = SUITES.index(caller.suite) + 1
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_answers_with", folder, address=AGENT, port=port, keys=agent.keys) as server,
        sipp(
            "carrier_offers_and_waits_for_bye", folder, address=CARRIER, to=to, number=number, keys=caller.keys
        ) as carrier,
    ):
        caller.talk(until("the caller is answered", lambda: _answer(carrier)))
        agent.talk(until("the agent is called", lambda: offer_to(server)))
        yield carrier, server
        [call] = edge.calls(carrier.sip_call_id)
        edge.control_plane.order(HangUp(id=f"hang_up {call.id}", call_id=call.id))
        carrier.wait()
        server.wait()


def _answer(side: Sipp) -> str:
    return next((m.partition("\n\n")[2] for m in side.received if m.startswith("SIP/2.0 200")), "")


def is_recorded(edge: RunningEdge, call_id: str) -> bool:
    return call_id in edge.control_plane.recordings


def recording(edge: RunningEdge, folder: Path, call_id: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what is on the caller's and on the agent's side of a recording, at 8 kHz."""
    until("the recording is handed over", lambda: is_recorded(edge, call_id))
    mp3 = folder / "recording.mp3"
    mp3.write_bytes(edge.control_plane.recordings[call_id])
    (left, right), rate = decode(mp3)
    return at_8000(left, rate), at_8000(right, rate)


def event(call: Call, kind: type) -> object:
    return next((each for each in call.events if isinstance(each, kind)), None)


@pytest.mark.parametrize(("callers", "suite"), [(PCMU, None), (PCMU, SUITE), (G722, None), (OPUS, None)])
def test_a_caller_is_told_before_the_agent_is_called_and_so_is_the_recording(
    edge: RunningEdge, number: str, agent_port: int, folder: Path, callers: Codec, suite: str | None
) -> None:
    routes(edge, number, SHORT, agent_port)
    sought = sound_of(edge, SHORT)
    with (
        rtp_peer(CARRIER, callers, 440, suite) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        called_in(edge, folder, number, agent_port, caller, agent) as (carrier, server),
    ):
        hear_each_other(caller, agent)
        assert likeness(heard_by(caller), sought) > SPOKEN_CORRELATION
        assert likeness(heard_by(agent), sought) < SPOKEN_CORRELATION
        assert header(server.received[0], "X-VoxPria-Call-Id")
        assert header(server.received[0], "From").startswith("<sip:+13038921234@")
    call = edge.ended_call(carrier.sip_call_id)
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by, call.ended.sip_code) == ("hangup", "api", 200)
    left, right = recording(edge, folder, call.id)
    assert likeness(right, sought) > SPOKEN_CORRELATION
    assert likeness(left, sought) < SPOKEN_CORRELATION
    assert abs(loudest_hertz(left[len(sought) :], 8000) - 440) < 5
    assert abs(loudest_hertz(right[len(sought) :], 8000) - 1000) < 5
    # the caller had a tone on the line from the first: what it said before it was told is not kept
    assert loudness(left[len(sought) // 4 : len(sought) // 2]) < loudness(left) / 10


def test_without_an_announcement_nothing_is_spoken(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, SHORT, agent_port)
    sought = sound_of(edge, SHORT)
    routes(edge, number, None, agent_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        called_in(edge, folder, number, agent_port, caller, agent) as (carrier, _),
    ):
        hear_each_other(caller, agent)
    call = edge.ended_call(carrier.sip_call_id)
    _, right = recording(edge, folder, call.id)
    assert likeness(heard_by(caller), sought) < SPOKEN_CORRELATION
    assert likeness(right, sought) < SPOKEN_CORRELATION


def test_a_callee_is_told_before_the_agent_is_called(edge: RunningEdge, number: str, folder: Path) -> None:
    callee_port, agent_port = free_port(), free_port()
    held = routes(edge, number, SHORT, agent_port, callee_port)
    sought = sound_of(edge, SHORT)
    with (
        rtp_peer(AGENT, PCMU, 440) as callee,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        sipp("agent_answers_with", folder, address=AGENT, port=callee_port, keys=callee.keys) as called,
        sipp("agent_answers_with", folder, address=AGENT, port=agent_port, keys=agent.keys) as server,
    ):
        wanted = order(edge, held)
        callee.talk(until("the callee is called", lambda: offer_to(called)))
        agent.talk(until("the agent is called", lambda: offer_to(server)))
        hear_each_other(callee, agent)
        assert likeness(heard_by(callee), sought) > SPOKEN_CORRELATION
        edge.control_plane.order(HangUp(id=f"hang_up {wanted.call_id}", call_id=wanted.call_id))
        called.wait()
        server.wait()
    left, right = recording(edge, folder, wanted.call_id)
    assert likeness(right, sought) > SPOKEN_CORRELATION
    assert abs(loudest_hertz(left[len(sought) :], 8000) - 440) < 5
    assert abs(loudest_hertz(right[len(sought) :], 8000) - 1000) < 5


def test_what_can_not_be_spoken_is_not_recorded_and_the_record_says_why(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, Announcement(text="Hello", language="tlh-xx"), agent_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        rtp_peer(AGENT, PCMU, 1000) as agent,
        called_in(edge, folder, number, agent_port, caller, agent) as (carrier, _),
    ):
        hear_each_other(caller, agent)
    call = edge.ended_call(carrier.sip_call_id)
    answered = event(call, Answered)
    assert isinstance(answered, Answered)
    assert not answered.recording
    failed = until("it is told why", lambda: event(edge.ended_call(carrier.sip_call_id), RecordingFailed))
    assert isinstance(failed, RecordingFailed)
    assert "its trunk's announcement could not be spoken" in failed.detail
    assert event(call, Recorded) is None
    assert not is_recorded(edge, call.id)


def test_a_program_that_ends_before_it_has_read_the_text_is_an_error_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = tmp_path / "espeak-ng"
    hasty.write_text("#!/bin/false\n")
    hasty.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))

    async def body() -> None:
        for _ in range(30):
            with pytest.raises(SpeechError):
                await _speak(SHORT, tmp_path / "speech.wav")

    uvloop.run(body())  # as the agent does


def test_a_caller_that_hangs_up_meanwhile_reaches_no_agent(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, LONG, agent_port)
    sound_of(edge, LONG)
    to = (edge.address, edge.sip_port)
    with (
        rtp_peer(CARRIER, PCMU, 440) as caller,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as server,
        sipp("carrier_offers", folder, address=CARRIER, to=to, number=number, keys=caller.keys) as carrier,
    ):
        carrier.wait()
        call = edge.ended_call(carrier.sip_call_id)
        failed = until("there is no recording", lambda: event(edge.ended_call(carrier.sip_call_id), RecordingFailed))
        assert not server.received
    assert call.ended is not None
    assert (call.ended.cause, call.ended.by) == ("hangup", "caller")
    assert isinstance(failed, RecordingFailed)
    assert failed.detail == "The call ended before its announcement did."


def test_an_agent_that_refuses_ends_the_call_at_the_caller(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, SHORT, agent_port)
    sound_of(edge, SHORT)
    to = (edge.address, edge.sip_port)
    with (
        sipp(busy(folder), folder, address=AGENT, port=agent_port) as server,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier,
    ):
        carrier.wait()
        server.wait()
    end = edge.ended_call(carrier.sip_call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("rejected", "agent")
    assert "486" in str(end.detail)


def test_an_offer_of_plain_rtp_within_an_encrypted_call_is_refused_and_the_call_goes_on(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, SHORT, agent_port, encryption="required")
    sound_of(edge, SHORT)
    to = (edge.address, edge.sip_port)
    with (
        rtp_peer(CARRIER, PCMU, 440, SUITE) as caller,
        sipp("agent_answers", folder, address=AGENT, port=agent_port) as server,
        sipp(
            "carrier_turns_encryption_off", folder, address=CARRIER, to=to, number=number, keys=caller.keys
        ) as carrier,
    ):
        carrier.wait()
        server.wait()
    end = edge.ended_call(carrier.sip_call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("hangup", "caller")


def test_an_agent_process_that_is_killed_meanwhile_leaves_no_call_open(
    edge: RunningEdge, number: str, agent_port: int, folder: Path
) -> None:
    routes(edge, number, LONG, agent_port)
    sound_of(edge, LONG)
    to = (edge.address, edge.sip_port)
    with sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as carrier:
        until("it is answered", lambda: _answer(carrier))
        edge.kill_part("agent")
        edge.start_part("agent")
        carrier.wait()
    end = edge.ended_call(carrier.sip_call_id).ended
    assert end is not None
    assert (end.cause, end.by) == ("lost", "edge")
    until("the edge is up again", edge.is_up, 60)


@dataclass(frozen=True)
class Told:
    """What the control plane has of a call whose first trunk's server did not take it."""

    kinds: list[str]
    explanation: Explanation
    attempts: list[tuple[str, str, str, int, str, str | None]]
    answered_by: str | None
    end: tuple[str, str, int]
    timed: list[str]
    agents_messages: list[tuple[str, str]]
    """What went to and from trunks' servers: first words, and to whom; however often it was repeated."""


def failed_over(edge: RunningEdge, number: str, folder: Path, announcement: Announcement | None) -> Told:
    """Have a carrier call in through a trunk with this announcement, to a first server that fails and a second."""
    folder.mkdir()
    (folder / "second").mkdir()
    ports = free_port(), free_port()
    policy = {"is_recorded": True, "announcement": announcement}
    carrier = trunk_to(1, id=f"trunk_c_{number[1:]}", name="Carrier", **policy)
    second = trunk_to(ports[1], id=f"trunk_b_{number[1:]}", name="Second", provider="elevenlabs", allowed_addresses=())
    first = trunk_to(
        ports[0],
        id=f"trunk_a_{number[1:]}",
        name="First",
        provider="elevenlabs",
        allowed_addresses=(),
        failover_trunk_ids=(second.id,),
    )
    edge.route([carrier, first, second], [number_on(carrier, number, agent_trunk_id=first.id)])
    if announcement:
        sound_of(edge, announcement)
    to = (edge.address, edge.sip_port)
    with (
        sipp("agent_refuses", folder, address=AGENT, port=ports[0]) as refusing,
        sipp("agent_answers_and_hangs_up", folder / "second", address=AGENT, port=ports[1]) as answering,
        sipp("carrier_is_hung_up_on", folder, address=CARRIER, to=to, number=number) as calling,
    ):
        for side in (calling, refusing, answering):
            side.wait()
    call = edge.ended_call(calling.sip_call_id)
    timed = until("it is timed", lambda: event(edge.ended_call(calling.sip_call_id), Timed))
    trace = until("the whole trace", lambda: _whole(edge, call.id))
    answered, end = event(call, Answered), call.ended
    assert isinstance(answered, Answered)
    assert isinstance(timed, Timed)
    assert end is not None
    places = {f"{AGENT}:{port}": name for port, name in zip(ports, ("first", "second"), strict=True)}
    tries = [each for each in call.events if isinstance(each, Attempted)]
    parts = ("post_dial_delay_ms", "edge_ms", "agent_ringing_ms", "agent_answer_ms", "carrier_ack_ms")
    return Told(
        kinds=sorted(kind for kind in call.kinds if kind in ("invited", "attempted", "ringing", "answered", "ended")),
        explanation=_without(call.invited.explanation, places),
        attempts=[
            (
                each.trunk_id,
                places[each.server.partition("/")[0]],
                each.cause,
                each.sip_code,
                each.sip_reason,
                each.detail,
            )
            for each in tries
        ],
        answered_by=answered.trunk_id,
        end=(end.cause, end.by, end.sip_code),
        timed=[part for part in parts if getattr(timed, part) is not None],
        agents_messages=sorted(
            {
                (_first_words(message.text), place)
                for message in trace.messages
                for place in (places.get(message.source) or places.get(message.destination),)
                if place and message.leg == "agent"
            }
        ),
    )


def _without(explanation: Explanation, places: dict[str, str]) -> Explanation:
    """Return an explanation with servers by what they are in the test, and not by their ports."""
    text = msgspec.json.encode(explanation).decode()
    for address, place in places.items():
        text = text.replace(address, place)
    return msgspec.json.decode(text, type=Explanation)


def _first_words(text: str) -> str:
    words = text.split()
    method = header(text.replace("\r", ""), "CSeq").split()[1]
    return f"{words[1]} {method}" if words[0] == "SIP/2.0" else words[0]


def _whole(edge: RunningEdge, call_id: str) -> Trace | None:
    byes = {"carrier", "agent"}
    return next(
        (
            trace
            for trace in edge.control_plane.traces.get(call_id, [])
            if {m.leg for m in trace.messages if m.text.startswith("BYE ")} == byes
            and {
                m.leg
                for m in trace.messages
                if "BYE" in header(m.text.replace("\r", ""), "CSeq") and m.text[:3] == "SIP"
            }
            == byes
        ),
        None,
    )


def test_another_trunk_takes_an_announced_call_and_all_is_told_as_of_a_plain_one(
    edge: RunningEdge, number: str, folder: Path
) -> None:
    plain = failed_over(edge, number, folder / "plain", None)
    announced = failed_over(edge, number, folder / "announced", SHORT)
    assert announced == plain
    [tried] = announced.attempts
    assert tried[:4] == (f"trunk_a_{number[1:]}", "first", "rejected", 503)
    assert announced.answered_by == f"trunk_b_{number[1:]}"
    assert announced.end == ("hangup", "agent", 200)
