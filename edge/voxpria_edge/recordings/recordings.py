"""After a call: its media session ended, its packets measured, its recording made and handed over.

Every step may be done again: a crash anywhere here costs time, no recording. What is left of a capture (its metadata
holds the keys of encrypted media) is deleted as soon as it has been read.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog
from voxpria_routing import events

from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.spool import Change, Spool
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.background import Background
from voxpria_edge.kit.backoff import Backoff
from voxpria_edge.kit.ids import event_id
from voxpria_edge.media import issues, rtcp, worker
from voxpria_edge.media.job import Announced, CaptureJob, MediaResult
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError

_log = structlog.get_logger(__name__)

_CAPTURE_FOLDERS = ("pcaps", "metadata", "tmp")
_CALL_ID = re.compile(r"call_[0-9a-z]{26}")
Result = TypeVar("Result")

_ADVANCE_SECONDS = 2.0
_SWEEP_SECONDS = 60.0
_AT_ONCE = 4
_PROCESS_SECONDS = 300.0
_MOST_METADATA_BYTES = 1 << 20
_CLOCK_MARGIN_SECONDS = 60
"""How far a step of the machine's clock may put packets outside their call."""
_UNUSABLE = (400, 404, 409, 413)
"""Answers to an upload that no later try will change."""


class Recordings:
    """Takes ended calls and finishes them, a few at once."""

    def __init__(
        self, captures: Path, folder: Path, book: Book, rtpengine: Rtpengine, spool: Spool, control_plane: ControlPlane
    ) -> None:
        self._captures, self._folder = captures, folder
        self._book, self._rtpengine, self._spool, self._control_plane = book, rtpengine, spool, control_plane
        self._pool = worker.new_pool()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.background = Background()

    async def run(self) -> None:
        """Read the captures of calls that last, and delete what a crash has left behind, until cancelled."""
        await asyncio.sleep(_ADVANCE_SECONDS)  # not while everything starts: the processor is needed elsewhere
        with contextlib.suppress(BrokenProcessPool):
            self._pool.submit(worker.warm)
        swept_at = time.monotonic()
        while True:
            await asyncio.sleep(_ADVANCE_SECONDS)
            for call in self._book.open_calls:
                if call.is_captured and call.answered_at is not None:
                    await self._advance(call)
            if time.monotonic() - swept_at < _SWEEP_SECONDS:
                continue
            swept_at = time.monotonic()
            try:
                await asyncio.to_thread(self._sweep, frozenset(self._book.calls))
            except OSError as error:
                _log.error("what is left of captures can't be deleted", error=str(error))

    async def _advance(self, call: Call) -> None:
        """Read what has come of a call; whatever hinders it, all is read again at its end."""
        job = self._job(call)
        if job is None or not (job.caller_ports and job.agent_ports):
            return
        with contextlib.suppress(OSError, TimeoutError, BrokenProcessPool):
            await self._in_worker(worker.advance, job)

    def _sweep(self, known: frozenset[str]) -> None:
        """Delete files of calls that are done with. One that grows belongs to a call that we are yet to hear of."""
        before = time.time() - _SWEEP_SECONDS
        folders = (self._folder, *(self._captures / name for name in _CAPTURE_FOLDERS))
        for file in (file for folder in folders for file in folder.glob("*")):
            found = _CALL_ID.search(file.name)
            if (found is None or found[0] not in known) and file.stat().st_mtime < before:
                file.unlink(missing_ok=True)
                call_id = found[0] if found else None
                _log.warning("deleted what was left of a call", call_id=call_id, file=file.name)

    def take(self, call: Call) -> None:
        """Finish an ended call, in the background."""
        self.background.begin(self._finish(call))

    def close(self) -> None:
        """Stop; what is unfinished is taken up at the next start."""
        self.background.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _finish(self, call: Call) -> None:
        try:
            session = await self._end_session(call)
            told = await self._measure(call) if call.is_captured else _relayed(call, session)
            if call.unrecorded is not None and call.answered_at is not None:
                told = [*told, _failed(call, call.unrecorded)]
            if any(isinstance(event, events.Recorded) for event in told) and not await self._hand_over(call):
                told = [event for event in told if not isinstance(event, events.Recorded)]
                told.append(_failed(call, "The control plane did not take the recording."))
            await self._spool.commit(Change(events=told, calls={call.id: None}))
            self._book.forget(call.id)
            self._clean_up(call)
        except Exception:
            _log.exception("a call could not be finished; it is taken up again at the next start", call_id=call.id)

    async def _end_session(self, call: Call) -> dict[str, Any] | None:
        """End the call's media session; return what was known of it, if it was still there."""
        backoff = Backoff()
        for _ in range(10):
            try:
                session = await self._rtpengine.session(call.id)
                await self._rtpengine.delete(call.id)
            except RtpengineError:
                await asyncio.sleep(backoff.next_seconds())
            else:
                return session
        _log.warning("a media session could not be ended; it ends by its own time-out", call_id=call.id)
        return None

    async def _measure(self, call: Call) -> list[events.CallEvent]:
        """Return what the capture of an answered call tells."""
        if call.answered_at is None:
            return []
        job = self._job(call)
        if job is None:
            return [_failed(call, "No packet was captured.")]
        try:
            async with self._slots:
                result = await self._in_worker(worker.process, job)
        except (OSError, TimeoutError, BrokenProcessPool) as error:
            return [_failed(call, f"The capture could not be read: {type(error).__name__}.")]
        if result.problems:
            _log.warning("a capture was read with problems", call_id=call.id, problems=result.problems)
        return _events(call, result)

    async def _in_worker(self, work: Callable[[CaptureJob], Result], job: CaptureJob) -> Result:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._pool, work, job), _PROCESS_SECONDS)
        except (BrokenProcessPool, TimeoutError):
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = worker.new_pool()
            raise

    def _job(self, call: Call) -> CaptureJob | None:
        capture = next(self._files("pcaps", call), None)
        # where rtpengine was killed, its metadata is still where it was being written
        metadata = next(self._files("metadata", call), None) or next(self._files("tmp", call), None)
        if capture is None or metadata is None:
            return None
        with metadata.open("rb") as file:
            found = legs(file.read(_MOST_METADATA_BYTES).decode(errors="replace"), is_outbound=call.is_outbound)
        ended_at = call.ended_at or datetime.now(UTC)
        return CaptureJob(
            pcap=capture,
            caller_ports=frozenset(found.caller.ports),
            agent_ports=frozenset(found.agent.ports),
            caller_codecs=found.caller.codecs,
            agent_codecs=found.agent.codecs,
            began_at=call.spoken.is_over_at.timestamp()
            if call.spoken
            else call.opened_at.timestamp() - _CLOCK_MARGIN_SECONDS,
            ended_at=ended_at.timestamp() + _CLOCK_MARGIN_SECONDS,
            recording=self._recording(call),
            announcement=Announced(Path(call.spoken.sound), call.spoken.at.timestamp()) if call.spoken else None,
        )

    async def _hand_over(self, call: Call) -> bool:
        """Upload until it is taken; False when it never will be."""
        backoff = Backoff(longest_seconds=60)
        while True:
            try:
                await self._control_plane.hand_over_recording(call.id, self._recording(call))
            except ControlPlaneError as error:
                if error.status in _UNUSABLE and not self._spool.unsent:
                    _log.error("a recording was refused for good", call_id=call.id, error=str(error))
                    return False
                await asyncio.sleep(backoff.next_seconds())
            else:
                return True

    def _recording(self, call: Call) -> Path:
        return self._folder / f"{call.id}.mp3"

    def _files(self, kind: str, call: Call) -> Iterator[Path]:
        """Find rtpengine's files of a call, which it names by our id of it and some hex digits."""
        return (self._captures / kind).glob(f"*{call.id}-*")

    def _clean_up(self, call: Call) -> None:
        captured = (file for name in _CAPTURE_FOLDERS for file in self._files(name, call))
        for file in (*captured, self._recording(call)):
            with contextlib.suppress(FileNotFoundError):
                file.unlink()


@dataclass
class Leg:
    """One side of a capture: rtpengine's own media ports there, and what it calls the codecs without a fixed type."""

    ports: set[int] = field(default_factory=set)
    codecs: dict[int, str] = field(default_factory=dict)


@dataclass
class Legs:
    """Both sides of a capture."""

    caller: Leg = field(default_factory=Leg)
    agent: Leg = field(default_factory=Leg)


_SECTION = re.compile(r"^SDP mode: (offer|answer)$", re.M)
_AUDIO = re.compile(r"^m=audio (\d+) ", re.M)
_OPUS = re.compile(r"^a=rtpmap:(\d{1,3}) opus/48000", re.M | re.I)


def legs(metadata: str, *, is_outbound: bool = False) -> Legs:
    """Read a capture's metadata: the SDP that rtpengine sent on, offers towards the agent, answers to the caller.

    The port in an SDP is where its receiver sends to: the first that is offered is the agent's leg, or of an outbound
    call the other one's. Later, either side may offer; a port stays its leg's. So do the payload types.
    """
    offered, answered = Leg(), Leg()
    by_mode = {"offer": (offered, answered), "answer": (answered, offered)}
    parts = _SECTION.split(metadata)
    for mode, text in zip(parts[1::2], parts[2::2], strict=True):
        leg, other = by_mode[mode]
        ports = {int(port) for port in _AUDIO.findall(text)}
        if ports & other.ports:
            leg = other
        leg.ports.update(ports)
        leg.codecs.update((int(kind), "opus") for kind in _OPUS.findall(text))
    return Legs(caller=offered, agent=answered) if is_outbound else Legs(caller=answered, agent=offered)


def _relayed(call: Call, session: dict[str, Any] | None) -> list[events.CallEvent]:
    """Return what the endpoints' reports and the relay's counters tell of a call that was not captured."""
    if call.answered_at is None or call.ended_at is None or session is None:
        return []
    found = rtcp.relayed(session, call.from_tag, is_outbound=call.is_outbound)
    measured = events.Measured(
        id=event_id(call.id, "measured"),
        call_id=call.id,
        at=datetime.now(UTC),
        source="rtcp",
        caller=found.caller,
        agent=found.agent,
        issues=issues.missing(
            (call.ended_at - call.answered_at).total_seconds(),
            has_caller=found.caller_packets > 0,
            has_agent=found.agent_packets > 0,
        ),
    )
    return [measured]


def _events(call: Call, result: MediaResult) -> list[events.CallEvent]:
    at = datetime.now(UTC)
    assert call.answered_at is not None
    assert call.ended_at is not None
    caller, agent = result.caller_sound, result.agent_sound
    measured = events.Measured(
        id=event_id(call.id, "measured"),
        call_id=call.id,
        at=at,
        source="packets",
        caller=result.caller,
        agent=result.agent,
        caller_first_audio_at=datetime.fromtimestamp(caller.first_at, UTC) if caller else None,
        agent_first_audio_at=datetime.fromtimestamp(agent.first_at, UTC) if agent else None,
        issues=issues.heard(_conversation_began(call), call.ended_at.timestamp(), caller, agent),
    )
    told: list[events.CallEvent] = [measured]
    if not result.recording_bytes:
        is_cut_short = call.spoken is not None and call.ended_at < call.spoken.is_over_at
        why = "The call ended before its announcement did." if is_cut_short else "Neither side sent audio."
        return [*told, _failed(call, why)]
    recorded = events.Recorded(
        id=event_id(call.id, "recorded"),
        call_id=call.id,
        at=at,
        duration_seconds=round(result.recording_seconds, 3),
        size_bytes=result.recording_bytes,
    )
    return [*told, recorded]


def _conversation_began(call: Call) -> float:
    """Return from when on both could speak, seconds since 1970."""
    assert call.answered_at is not None
    return (call.spoken.is_over_at if call.spoken else call.answered_at).timestamp()


def _failed(call: Call, detail: str) -> events.RecordingFailed:
    return events.RecordingFailed(
        id=event_id(call.id, "recording_failed"), call_id=call.id, at=datetime.now(UTC), detail=detail
    )
