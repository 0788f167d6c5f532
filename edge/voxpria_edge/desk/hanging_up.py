"""Ends calls: for the API, for the watch, for a side whose media must be encrypted and is not."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import structlog
from voxpria_routing.events import EndCause, Side
from voxpria_routing.table import Table

from voxpria_edge.calls import endings, uac
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.desk.middle import Middle
from voxpria_edge.kit.background import Background
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Request, Rpc, RpcError

_log = structlog.get_logger(__name__)

_MOST_OVER = 1000
_HANG_UP_TRIES, _HANG_UP_SECONDS = 10, 1.0
_PASSING_SECONDS = 40.0
"""How long the last requests of a call that is over may still pass: longer than they are repeated."""


class HangingUp:
    """How calls are ended that do not end by themselves."""

    def __init__(self, book: Book, rpc: Rpc, middle: Middle, table: Callable[[], Table]) -> None:
        """`table` gives the routes in force: a trunk's server may want credentials for a BYE."""
        self._book, self._rpc, self._middle, self._table = book, rpc, middle, table
        self._over: OrderedDict[str, Call] = OrderedDict()
        """By id: the calls that ended last, whose BYEs may not have been answered yet."""
        self._background = Background()

    async def end_for_api(self, call_id: str) -> None:
        """End a call because the API was told to, ringing or answered; again, until it is over."""
        for _ in range(_HANG_UP_TRIES):
            call = self._book.open_call(call_id)
            if call is None:
                return
            if call.answered_at is None:
                await self._cancel(call)
            else:
                await self.hang_up(call_id, "hangup", by="api")
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

    async def hang_up(self, call_id: str, cause: EndCause, by: Side = "edge") -> None:
        """Have an answered call ended at both sides, for `cause`, as `by` wants it; to be asked again until it is over.

        Kamailio does that, or the middle, and tells us. Where neither knows the call (any more), we do: at once if that
        is known, else when asked again, as the word of its end may be on its way. The first cause is the cause.
        """
        call = self._book.open_call(call_id)
        if call is None:
            return
        is_again = call.ending is not None
        if not is_again:
            self._book.remember(None, msgspec.structs.replace(call, ending=cause, ended_by=by), [])
        if await self._middle.hang_up(call_id) and not is_again:
            return
        try:
            is_known = await self._rpc.hang_up(call.sip_call_id)
            if not is_known and self._book.is_current and (is_again or call_id in self._book.orphans):
                await self._say_bye(call_id)
        except RpcError as error:
            _log.warning("a call could not be ended", call_id=call_id, error=str(error))

    async def _say_bye(self, call_id: str) -> None:
        """End a call that Kamailio has forgotten, in the words of each side to the other. Raises RpcError."""
        call = self._book.open_call(call_id)
        if call is None:
            return
        for request in uac.byes(call):
            await self._rpc.send_request(request)
        self._book.remember(None, *endings.hung_up(call, datetime.now(UTC)))
        if call.bridge is None:  # else the middle's own BYEs are yet to pass
            with contextlib.suppress(RpcError):
                await self._rpc.forget(call.id)

    def done(self, call: Call, by: Side | None) -> None:
        """Hear of a call that is over, and who ended it."""
        self._over[call.id] = call
        if len(self._over) > _MOST_OVER:
            self._over.popitem(last=False)
        if call.id in self._book.orphans:
            self._background.begin(self._forget(call))
        self._middle.done(call, by)

    async def _forget(self, call: Call) -> None:
        """Let no more requests pass of a call that Kamailio was told to let through: it may have seen no BYE."""
        await asyncio.sleep(_PASSING_SECONDS)
        for record in call.records:
            with contextlib.suppress(RpcError):  # it was restarted once more, or is about to be
                await self._rpc.forget(record)

    def authorize(self, asked: messages.ByeChallenged) -> None:
        """Send a BYE of the edge's own again, with the credentials that it is asked for, if we have them."""
        for call in (*self._book.calls.values(), *self._over.values()):
            request = uac.bye_again(call, asked, self._table().trunks)
            if request is not None:
                self._background.begin(self._send([request], call.id))
                return

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

    def cut_off(self, message: messages.Unfit) -> None:
        """End a call whose media can't stand: refused while it is set up, or hung up."""
        call = self._book.open_call(messages.text(message.record))
        self._book.remember(message.id, None, [])
        if call is None:
            return
        if call.answered_at is not None:
            self._background.begin(self.hang_up(call.id, message.cause))
            return
        self._background.begin(self._refuse(message))
        self._book.remember(None, *endings.cut_off(call, message))

    def end_stray(self, message: messages.Stray) -> None:
        """Acknowledge a late answer, or it is repeated; end what it began, unless that is a call that is up."""
        record = messages.text(message.record)
        call = self._book.open_call(record)
        if call is None and record not in self._book.over:
            return  # whoever made this up is told nothing
        if call is not None and record == call.id and call.is_ours_to_answer:
            return  # our own, which is repeated until a caller that calls in again has it
        requests = uac.acknowledged_and_ended(message)
        self._background.begin(self._send(requests[:1] if call and call.answered_at else requests, record))

    async def _send(self, requests: Sequence[Request], record: str) -> None:
        try:
            for request in requests:
                await self._rpc.send_request(request)
        except RpcError as error:
            _log.warning("an ACK or a BYE could not be sent", call_id=record, error=str(error))

    async def _refuse(self, message: messages.Unfit) -> None:
        """Give the caller its answer; acknowledge and end what the called side takes for a call."""
        try:
            await self._rpc.reply(message.index, message.label, *endings.UNFIT)
            for request in uac.acknowledged_and_ended(message) if message.code >= 200 else ():
                await self._rpc.send_request(request)
        except RpcError as error:
            _log.warning("a call could not be cut off", call_id=messages.text(message.record), error=str(error))
