"""Ends calls: for the API, for the watch, for a side whose media must be encrypted and is not."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import structlog
from voxpria_routing.events import EndCause, Side

from voxpria_edge import endings, messages, uac
from voxpria_edge.background import Background
from voxpria_edge.book import Book
from voxpria_edge.calls import Call
from voxpria_edge.kamailio import Rpc, RpcError
from voxpria_edge.middle import Middle

_log = structlog.get_logger(__name__)

_HANG_UP_TRIES, _HANG_UP_SECONDS = 10, 1.0


class HangingUp:
    """How calls are ended that do not end by themselves."""

    def __init__(self, book: Book, rpc: Rpc, middle: Middle) -> None:
        self._book, self._rpc, self._middle = book, rpc, middle
        self._background = Background()

    async def end_for_api(self, call_id: str) -> None:
        """End a call because the API was told to, ringing or answered; again, until it is over."""
        for _ in range(_HANG_UP_TRIES):
            call = self._book.open_call(call_id)
            if call is None:
                return
            if call.answered_at is None:
                await self._cancel(call)
            elif call_id in self._book.orphans:
                self._book.remember(None, *endings.hung_up_by_api(call, datetime.now(UTC)))
            else:
                await self.hang_up(call, "hangup", by="api")
            await asyncio.sleep(_HANG_UP_SECONDS)
        _log.error("a call could not be ended for the API", call_id=call_id)

    async def _cancel(self, call: Call) -> None:
        """End a call that nobody has answered; where somebody just has, Kamailio refuses to."""
        try:
            await self._rpc.refuse(call.sip_call_id, call.cseq, *endings.API_ANSWER, call.id)
        except RpcError as error:
            _log.info("a ringing call could not be ended", call_id=call.id, error=str(error))
            return
        self._book.remember(None, *endings.canceled_by_api(self._book.calls.get(call.id, call), datetime.now(UTC)))

    async def hang_up(self, call: Call, cause: EndCause, by: Side = "edge") -> None:
        """Have Kamailio end a call, for `cause`, as `by` wants it."""
        self._book.calls[call.id] = msgspec.structs.replace(call, ending=cause, ended_by=by)
        if await self._middle.hang_up(call.id):
            return
        try:
            await self._rpc.hang_up(call.sip_call_id)
        except RpcError as error:
            _log.warning("a call could not be ended", call_id=call.id, error=str(error))

    async def give_up_placed(self, call_id: str) -> None:
        """End a call that was being set up when our last run ended."""
        why = "The edge's agent was restarted while the call was being set up."
        call = msgspec.structs.replace(self._book.calls[call_id], ending="lost", ending_detail=why)
        self._book.calls[call_id] = call
        cseq = call.cseq or 1
        for ending in (
            self._rpc.refuse(call.sip_call_id, cseq, 503, "Service Unavailable", call.id),
            self._rpc.refuse(call.sip_call_id, cseq + 1, 503, "Service Unavailable", call.id),  # its other half
            self._rpc.hang_up(call.sip_call_id),
        ):
            try:
                await ending
            except RpcError as error:
                _log.info("nothing of a call was left to be ended", call_id=call_id, error=str(error))
        left = self._book.open_call(call_id)
        if left is not None:
            self._book.lose(left, why)

    def cut_off(self, message: messages.Insecure) -> None:
        """End a call that would not be encrypted as its trunk requires: refused while it is set up, or hung up."""
        call = self._book.open_call(messages.text(message.record))
        self._book.remember(message.id, None, [])
        if call is None:
            return
        if call.answered_at is not None:
            self._background.begin(self.hang_up(call, "insecure_media"))
            return
        self._background.begin(self._refuse(message))
        self._book.remember(None, *endings.cut_off(call, message))

    def end_stray(self, message: messages.Stray) -> None:
        """Acknowledge a late answer, or it is repeated; end what it began, unless that is a call that is up."""
        record = messages.text(message.record)
        call = self._book.open_call(record)
        if call is None and record not in self._book.over:
            return  # whoever made this up is told nothing
        requests = uac.acknowledged_and_ended(message)
        self._background.begin(self._send(requests[:1] if call and call.answered_at else requests, record))

    async def _send(self, requests: Sequence[uac.Request], record: str) -> None:
        try:
            for request in requests:
                await self._rpc.send(request)
        except RpcError as error:
            _log.warning("a late answer could not be ended", call_id=record, error=str(error))

    async def _refuse(self, message: messages.Insecure) -> None:
        """Give the caller its answer; acknowledge and end what the called side takes for a call."""
        try:
            await self._rpc.reply(message.index, message.label, *endings.INSECURE)
            for request in uac.acknowledged_and_ended(message) if message.code >= 200 else ():
                await self._rpc.send(request)
        except RpcError as error:
            _log.warning("a call could not be cut off", call_id=messages.text(message.record), error=str(error))
