"""After a call: measured, recorded, handed over; nothing of a capture is left, whatever happened on the way."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kamailio_words import invite
from media_tools import START, talk, write_pcap
from scripted import Media, Store
from test_desk import Office, office
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.spool import Change
from voxpria_edge.recordings import recordings
from voxpria_edge.recordings.recordings import Recordings, legs
from voxpria_routing.events import Measured

pytestmark = pytest.mark.timeout(60)

CALLER, AGENT = 40000, 40002
METADATA = f"""sdp mode of nobody
SDP mode: offer
v=0
m=audio {AGENT} RTP/AVP 0 107
a=rtpmap:107 opus/48000/2

SDP mode: answer
v=0
m=audio {CALLER} RTP/AVP 0
"""


class Studio:
    """Recordings beside an office, and the folders they work in."""

    def __init__(self, at: Office, folder: Path, store: Store) -> None:
        self.office, self.store, self.media = at, store, Media()
        self.captures, self.folder = folder / "captures", folder / "recordings"
        for path in (self.captures / "pcaps", self.captures / "metadata", self.folder):
            path.mkdir(parents=True, exist_ok=True)
        self.recordings = Recordings(self.captures, self.folder, at.book, self.media, at.spool, store)

    async def ended_call(self, *, answered: bool = True, captured: bool = True) -> Call:
        """A call that is over, as the desk hands it on: on disk, not yet finished."""
        await self.office.hear(invite())
        (call,) = self.office.book.open_calls
        began = datetime.fromtimestamp(START, UTC)
        now = began + timedelta(seconds=4)
        call = msgspec.structs.replace(
            call, opened_at=began, is_captured=captured, answered_at=began if answered else None, ended_at=now
        )
        self.office.book.calls[call.id] = call
        await self.office.spool.commit(Change(calls={call.id: call}))
        return call

    def capture(self, call: Call) -> None:
        """What rtpengine leaves: both sides spoke for two seconds."""
        write_pcap(self.captures / "pcaps" / f"{call.id}-0123abcd.pcap", [*talk(440, 2, CALLER), *talk(900, 2, AGENT)])
        (self.captures / "metadata" / f"{call.id}-0123abcd.txt").write_text(METADATA)

    async def finish(self, call: Call) -> list[str]:
        """Have the call finished; return the kinds of what is reported of it."""
        self.recordings.take(call)
        async with asyncio.timeout(40):
            while call.id in self.office.book.calls or not self.recordings.background.is_idle:
                await asyncio.sleep(0.02)
        return [kind for kind, _ in (await self.office.told())[1:]]

    async def issues(self) -> tuple[str, ...]:
        """What was said to be wrong with the audio."""
        told = [event for _, event in await self.office.spool.oldest(1000)]
        return next(event.issues for event in told if isinstance(event, Measured))

    def left(self) -> list[Path]:
        return [path for folder in (self.captures, self.folder) for path in folder.rglob("*") if path.is_file()]


@asynccontextmanager
async def studio(folder: Path, store: Store | None = None) -> AsyncIterator[Studio]:
    async with office(folder) as at:
        made = Studio(at, folder, store or Store())
        try:
            yield made
        finally:
            made.recordings.close()


async def test_a_capture_becomes_a_recording_and_goes(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        assert await at.finish(call) == ["Measured", "Recorded"]
        assert at.media.deleted == [call.id]
        assert at.store.taken[call.id]
        assert not at.left()


async def test_a_call_that_was_not_captured_ends_its_session_only(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call(captured=False)
        assert await at.finish(call) == []
        assert at.media.deleted == [call.id]
        assert not at.store.taken


async def test_an_unanswered_calls_capture_goes_unread(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call(answered=False)
        at.capture(call)
        assert await at.finish(call) == []
        assert not at.left()


async def test_the_control_plane_may_be_away_for_a_while(tmp_path: Path) -> None:
    async with studio(tmp_path, Store(None, 503, None)) as at:
        call = await at.ended_call()
        at.capture(call)
        assert await at.finish(call) == ["Measured", "Recorded"]
        assert at.store.taken[call.id]


async def test_a_recording_that_is_refused_for_good_is_said_so(tmp_path: Path) -> None:
    async with studio(tmp_path, Store(413)) as at:
        call = await at.ended_call()
        at.capture(call)
        at.office.spool.unsent = 0
        assert await at.finish(call) == ["Measured", "RecordingFailed"]
        assert not at.left()


@pytest.mark.parametrize("missing", ["pcaps", "metadata"])
async def test_half_a_capture_is_no_recording(tmp_path: Path, missing: str) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        for file in (at.captures / missing).iterdir():
            file.unlink()
        assert await at.finish(call) == ["RecordingFailed"]
        assert not at.left()


async def test_a_call_in_which_nobody_spoke_has_none(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        write_pcap(at.captures / "pcaps" / f"{call.id}-0123abcd.pcap", [])
        assert await at.finish(call) == ["Measured", "RecordingFailed"]
        assert await at.issues() == ("no_audio",)
        assert not at.left()


async def test_rtpengine_may_be_down_when_a_call_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        at.media.is_down = True

        class Soon:
            def __init__(self, **_: object) -> None: ...

            def next_seconds(self) -> float:
                return 0

        monkeypatch.setattr(recordings, "Backoff", Soon)
        assert await at.finish(call) == ["Measured", "Recorded"]


async def test_what_a_crash_left_unfinished_is_finished_by_the_next_run(tmp_path: Path) -> None:
    async with studio(tmp_path, Store(*[None] * 1000)) as at:
        call = await at.ended_call()
        at.capture(call)
        at.recordings.take(call)
        async with asyncio.timeout(30):
            while not (tmp_path / "recordings" / f"{call.id}.mp3").exists():
                await asyncio.sleep(0.02)
    async with studio(tmp_path) as at:
        (kept,) = at.office.book.calls.values()
        assert kept.id == call.id
        assert await at.finish(kept) == ["Measured", "Recorded"]
        assert not at.left()


async def test_what_a_crash_left_of_a_finished_call_goes(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        gone = "call_" + "0" * 26
        left = [
            at.captures / "pcaps" / f"{gone}-1.pcap",
            at.captures / "metadata" / f"{gone}-1.txt",
            at.captures / "tmp" / f"rtpengine-meta-{gone}-1.tmp",
            at.captures / "tmp" / "of nobody",
            at.folder / f"{gone}.mp3.part",
        ]
        young = at.captures / "pcaps" / f"call_{'1' * 26}-1.pcap"
        for file in (*left, young):
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"x")
        for file in (*left, *at.captures.glob(f"*/{call.id}*")):
            os.utime(file, (START, START))
        at.recordings._sweep(frozenset(at.office.book.calls))
        assert not [file for file in left if file.exists()]
        assert young.exists()
        assert await at.finish(call) == ["Measured", "Recorded"]


async def test_a_killed_relay_leaves_enough_for_the_recording(tmp_path: Path) -> None:
    async with studio(tmp_path) as at:
        call = await at.ended_call()
        at.capture(call)
        (at.captures / "tmp").mkdir()
        (metadata,) = (at.captures / "metadata").iterdir()
        metadata.rename(at.captures / "tmp" / f"rtpengine-meta-{call.id}-0123.tmp")
        assert await at.finish(call) == ["Measured", "Recorded"]
        assert not at.left()


@pytest.mark.unit
def test_the_metadata_tells_the_legs_apart() -> None:
    found = legs(METADATA)
    assert (found.caller.ports, found.caller.codecs) == ({CALLER}, {})
    assert (found.agent.ports, found.agent.codecs) == ({AGENT}, {107: "opus"})


@pytest.mark.unit
@pytest.mark.parametrize("is_outbound", [False, True])
def test_a_leg_keeps_its_port_whoever_offers_later(is_outbound: bool) -> None:
    """The agent holds the call, and the answer comes from the caller."""
    offer = f"SDP mode: offer\nv=0\nm=audio {CALLER} RTP/AVP 0\n"
    again = f"{METADATA}{offer}SDP mode: answer\nv=0\nm=audio {AGENT} RTP/AVP 0\n"
    found = legs(again, is_outbound=is_outbound)
    ports = (found.agent.ports, found.caller.ports)
    assert ports == (({CALLER}, {AGENT}) if is_outbound else ({AGENT}, {CALLER}))


@given(st.text(alphabet=st.sampled_from("SDP mode: offeranswer\nm=audio 0123456789 -"), max_size=300))
def test_any_metadata_is_some_legs(text: str) -> None:
    legs(text)
