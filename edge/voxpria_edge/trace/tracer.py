"""Takes mirrored messages in, and hands each call's trace over: after its answer, and once more after its end."""

import asyncio
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
from voxpria_routing.events import Answered, CallEvent, Ended, Invited

from voxpria_edge.calls.spool import Change, Spool
from voxpria_edge.control_plane import ControlPlane, ControlPlaneError
from voxpria_edge.kit.backoff import Backoff
from voxpria_edge.trace import story
from voxpria_edge.trace.dropped import is_dropped
from voxpria_edge.trace.hep import Address, Mirrored, decode
from voxpria_edge.trace.redact import redact
from voxpria_edge.trace.store import MOST_MESSAGES_A_CALL, Due, Store
from voxpria_edge.trace.story import Seen

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_MOST_WAITING = 5000
_AT_ONCE = 100
_EVERY_SECONDS = 0.25
_SWEEP_SECONDS = 60.0
_RECOVER_SECONDS = 5.0
_HANDED_OVER_AT_ONCE = 8
_AFTER_ANSWER_SECONDS, _AFTER_END_SECONDS = 1.0, 1.5
"""So that the ACK, and the answers to a BYE, are in it."""
_UNUSABLE = (400, 404, 413)
_CALL_ID = re.compile(rb"^(?:call-id|i)[ \t]*:[ \t]*([^\r\n]{1,256})", re.M | re.I)
_LONGEST_MESSAGE_BYTES = 20_000
_MASKED = "!!:"
"""How topoh's Call-IDs begin, by which the called side knows a call."""
_RECORD = re.compile(r"^(?:Record-)?Route:[^\r\n]*;call=(call_[0-9a-z]{26})", re.M)


class Tracer:
    """The evidence of every call of ours, message by message."""

    def __init__(
        self, path: Path, listen: Address, ours: Callable[[Address], bool], spool: Spool, control_plane: ControlPlane
    ) -> None:
        """`listen` is where Kamailio mirrors to; `ours` tells the edge's own SIP addresses."""
        self._path, self._listen, self._ours = path, listen, ours
        self.is_inner: Callable[[Address], bool] = lambda _: False
        """Tells addresses inside this edge: what goes between them and Kamailio is no evidence."""
        self.on_dropped: Callable[[Mirrored], None] = lambda _: None
        """Hears of INVITEs that came and that Kamailio drops without a word."""
        self._spool, self._control_plane = spool, control_plane
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trace")
        self._waiting: deque[bytes] = deque(maxlen=_MOST_WAITING)
        self._told: deque[CallEvent] = deque(maxlen=_MOST_WAITING)

    def take(self, events: Sequence[CallEvent]) -> None:
        """Hear what has been told of calls: which are ours, which were answered, which are over."""
        self._told.extend(event for event in events if isinstance(event, Invited | Answered | Ended))

    async def run(self, open_calls: Iterable[str]) -> None:
        """Take in and hand over, until cancelled; a failure costs traces, and no more.

        `open_calls` are those that go on from an earlier run.
        """
        still_open = list(open_calls)
        try:
            while True:
                try:
                    await self._work(still_open)
                except (OSError, sqlite3.Error) as error:
                    _log.error("calls are not traced", error=str(error))
                    await asyncio.sleep(_RECOVER_SECONDS)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self, still_open: Sequence[str]) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Intake(self._waiting), local_addr=self._listen)
        try:
            self._store = await self._do(lambda: Store(self._path))
            await self._do(lambda: self._store.make_all_due_but(still_open, time.time()))
            await asyncio.gather(self._take_in(), self._hand_over())
        finally:
            transport.close()

    async def _take_in(self) -> None:
        swept_at = time.monotonic()
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                while self._waiting or self._told:
                    for dropped in await self._do(self._keep_some):
                        self.on_dropped(dropped)
                if time.monotonic() - swept_at > _SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    await self._do(lambda: self._store.sweep(time.time()))
            except sqlite3.Error as error:
                _log.error("the trace's file can't be written", error=str(error))

    def _keep_some(self) -> list[Mirrored]:
        """Keep a few messages and what was told of calls; in the thread, and not for long at a time.

        Returns those that Kamailio drops without a word.
        """
        packets = [self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))]
        mirrored = [one for one in map(_mirrored, packets) if one is not None]
        found = (seen for seen in map(_seen, mirrored) if seen is not None)
        messages = [
            (key, seen) for key, seen in found if not (self.is_inner(seen.source) or self.is_inner(seen.destination))
        ]
        self._store.add(messages)
        for key, seen in messages:
            if key.startswith(_MASKED) and self._ours(seen.source) and (record := _RECORD.search(seen.text)):
                self._store.alias(key, record[1])
        for _ in range(len(self._told)):
            match self._told.popleft():
                case Invited() as event:
                    self._store.open_call(
                        event.call_id,
                        event.sip_call_id,
                        event.at.timestamp(),
                        is_outbound=event.direction == "outbound",
                    )
                case Answered() as event:
                    self._store.make_due(event.call_id, time.time() + _AFTER_ANSWER_SECONDS, is_over=False)
                case event:
                    self._store.make_due(event.call_id, time.time() + _AFTER_END_SECONDS, is_over=True)
        return [one for one in mirrored if self._ours(one.destination) and is_dropped(one.payload)]

    async def _hand_over(self) -> None:
        backoff = Backoff(longest_seconds=30)
        while True:
            try:
                due = await self._do(lambda: self._store.due(time.time(), _HANDED_OVER_AT_ONCE))
                await asyncio.gather(*map(self._hand_over_one, due))
                backoff.reset()
                if len(due) < _HANDED_OVER_AT_ONCE:
                    await asyncio.sleep(_EVERY_SECONDS)
            except ControlPlaneError:
                await asyncio.sleep(backoff.next_seconds())
            except sqlite3.Error as error:
                _log.warning("the traces can't be read", error=str(error))
                await asyncio.sleep(backoff.next_seconds())

    async def _hand_over_one(self, call: Due) -> None:
        """Hand a trace over; raise ControlPlaneError if it is to be tried again."""
        seen = await self._do(lambda: self._store.messages(call))
        told = story.trace(
            call.call_id,
            seen,
            self._ours,
            is_outbound=call.is_outbound,
            is_truncated=len(seen) >= MOST_MESSAGES_A_CALL,
        )
        timed = story.timed(told, datetime.now(UTC), is_outbound=call.is_outbound) if call.is_over else None
        if timed is not None:
            await self._spool.commit(Change(events=[timed]))
        if told.messages:
            try:
                await self._control_plane.hand_over_trace(told)
            except ControlPlaneError as error:
                if error.status not in _UNUSABLE:
                    _log.warning("a trace was not handed over", call_id=call.call_id, error=str(error))
                    raise
                _log.error("a trace was refused for good", call_id=call.call_id, error=str(error))
        await self._do(lambda: self._store.done(call))

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _Intake(asyncio.DatagramProtocol):
    """Takes datagrams as fast as they come; of too many the oldest go."""

    def __init__(self, waiting: deque[bytes]) -> None:
        self._waiting = waiting

    def datagram_received(self, data: bytes, _address: object) -> None:
        self._waiting.append(data)


def _mirrored(packet: bytes) -> Mirrored | None:
    try:
        return decode(packet)
    except ValueError:
        return None


def _seen(mirrored: Mirrored) -> tuple[str, Seen] | None:
    """Return a mirrored message without its secrets, with its Call-ID; None for what is no SIP message of a call."""
    found = _CALL_ID.search(mirrored.payload)
    if found is None or len(mirrored.payload) > _LONGEST_MESSAGE_BYTES:
        return None
    key = found[1].strip().decode(errors="backslashreplace")
    return key, Seen(mirrored.at, mirrored.source, mirrored.destination, redact(mirrored.payload))
