"""Looks after open calls whose end nobody may tell: their time is over, their media gone, or Kamailio has lost them."""

import asyncio
from datetime import UTC, datetime, timedelta

from voxpria_routing.events import EndCause, Side

from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.desk.hanging_up import HangingUp
from voxpria_edge.desk.repeats import REPEATED_SECONDS
from voxpria_edge.kit.background import Background
from voxpria_edge.media.rtpengine import Rtpengine, RtpengineError

_TIME_SECONDS = 1.0
_MEDIA_SECONDS = 5.0
_GRACE_SECONDS = 10.0
"""For whoever else is to end a call, and for its media to begin."""


class Watch:
    """Ends what is over, and goes on asking for that until it is."""

    def __init__(self, book: Book, hanging_up: HangingUp, rtpengine: Rtpengine) -> None:
        self._book, self._hanging_up, self._rtpengine = book, hanging_up, rtpengine
        self._ending: set[str] = set()
        """Calls that are being ended: a side that does not answer holds up no other call."""
        self._background = Background()

    async def run(self) -> None:
        """Look at the time of every open call each second, and at its media every five, until cancelled."""
        try:
            await asyncio.gather(self._look_at_times(), self._look_at_media())
        finally:
            self._background.cancel()

    async def _look_at_times(self) -> None:
        while True:
            await asyncio.sleep(_TIME_SECONDS)
            self.end_overdue()

    async def _look_at_media(self) -> None:
        while True:
            await asyncio.sleep(_MEDIA_SECONDS)
            await self.end_silent()

    def end_overdue(self) -> None:
        """Begin to end the calls whose time is over, and lose those that a restarted Kamailio was still setting up.

        Sides that have agreed on a session timer end the call themselves, unless they are gone.
        """
        for call in self._book.open_calls:
            is_orphan = call.id in self._book.orphans
            if call.answered_at is None and is_orphan and not _may_come_again(call):
                self._book.lose(call, "Kamailio was restarted while the call was being set up.")
            elif _seconds(call) > call.max_duration_seconds + (0 if is_orphan else _GRACE_SECONDS) and not call.ending:
                self._end(call.id, "max_duration")
            elif self._book.is_current and _has_expired(call) and not call.ending:
                self._end(call.id, "session_expired")

    async def end_silent(self) -> None:
        """Begin to end the calls that have no media any more; and once more what should have ended by now."""
        for call in self._book.open_calls:
            if call.ending is not None and call.answered_at is not None:
                self._end(call.id, call.ending, call.ended_by)
            elif _seconds(call) > _GRACE_SECONDS and await self._has_no_media(call):
                self._end(call.id, "media_timeout")

    async def _has_no_media(self, call: Call) -> bool:
        """Tell whether rtpengine has given up the media: nothing came for too long, or it was restarted."""
        try:
            return await self._rtpengine.session(call.id) is None
        except RtpengineError:
            return False  # it is being restarted; then its sessions are gone, and the next look tells

    def _end(self, call_id: str, cause: EndCause, by: Side = "edge") -> None:
        if call_id not in self._ending:
            self._ending.add(call_id)
            self._background.begin(self._hang_up(call_id, cause, by))

    async def _hang_up(self, call_id: str, cause: EndCause, by: Side) -> None:
        try:
            await self._hanging_up.hang_up(call_id, cause, by)
        finally:
            self._ending.discard(call_id)

    async def settle(self) -> None:
        """Wait until what has been begun is over."""
        await self._background.settle(_MEDIA_SECONDS)


def _seconds(call: Call) -> float:
    """Return how long a call is up; 0 for one that nobody has answered."""
    return (datetime.now(UTC) - call.answered_at).total_seconds() if call.answered_at else 0.0


def _has_expired(call: Call) -> bool:
    """Tell whether nobody has refreshed a session in time (RFC 4028 section 10)."""
    grace = timedelta(seconds=_GRACE_SECONDS)
    return call.answered_at is not None and call.expires_at is not None and datetime.now(UTC) > call.expires_at + grace


def _may_come_again(call: Call) -> bool:
    """Tell whether the INVITE of a call that nobody has answered may be repeated once more, see `repeats`."""
    return call.marks != "" and (datetime.now(UTC) - call.opened_at).total_seconds() < REPEATED_SECONDS
