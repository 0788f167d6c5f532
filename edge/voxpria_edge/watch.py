"""Looks after open calls whose end nobody may tell: Kamailio has lost them, or their media is gone."""

import asyncio
from datetime import UTC, datetime

from voxpria_edge.book import Book
from voxpria_edge.calls import Call
from voxpria_edge.hanging_up import HangingUp
from voxpria_edge.repeats import REPEATED_SECONDS
from voxpria_edge.rtpengine import Rtpengine, RtpengineError

_EVERY_SECONDS = 5.0
_GRACE_SECONDS = 10.0


class Watch:
    """Ends what is over."""

    def __init__(self, book: Book, hanging_up: HangingUp, rtpengine: Rtpengine) -> None:
        self._book, self._hanging_up, self._rtpengine = book, hanging_up, rtpengine
        self._packets: dict[str, int] = {}

    async def run(self) -> None:
        """Look at every open call every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            for call in self._book.open_calls:
                await self._look_at(call)
            self._packets = {id_: count for id_, count in self._packets.items() if id_ in self._book.calls}

    async def _look_at(self, call: Call) -> None:
        age_seconds = (datetime.now(UTC) - (call.answered_at or call.opened_at)).total_seconds()
        is_orphan = call.id in self._book.orphans
        if call.answered_at is None:
            if is_orphan and not (call.marks and age_seconds < REPEATED_SECONDS):  # its INVITE may come once more
                self._book.lose(call, "Kamailio was restarted while the call was being set up.")
            return
        if is_orphan and age_seconds > call.max_duration_seconds + _GRACE_SECONDS:
            self._book.lose(call, "Kamailio was restarted during the call; its time is over.")
        elif age_seconds > _GRACE_SECONDS:
            await self._look_at_media(call, is_orphan=is_orphan)

    async def _look_at_media(self, call: Call, *, is_orphan: bool) -> None:
        try:
            packets = await self._rtpengine.packets(call.id)
        except RtpengineError:
            return  # it is being restarted; then its sessions are gone, and the next look tells
        before = self._packets.get(call.id)
        if packets is not None:
            self._packets[call.id] = packets
        if is_orphan and (packets is None or packets == before):
            self._book.lose(call, "Kamailio was restarted during the call; its media has ended.")
        elif packets is None:
            await self._hanging_up.hang_up(call, "media_timeout")
