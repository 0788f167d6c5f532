"""Sends what is ours to our own Kamailio: an INVITE until its final answer, and what comes after it in its dialog."""

import asyncio
import contextlib
from collections.abc import Callable

from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import Endpoint
from voxpria_sip.message import Request, Response
from voxpria_sip.transaction import ClientTransaction, TransactionError
from voxpria_sip.transport import Address, Flow
from voxpria_sip.uri import MalformedError

from voxpria_edge.calls.half import Half
from voxpria_edge.proxy import messages

_ANSWER_SECONDS = 900
"""Kamailio's own limits are shorter: on ringing, and on trying one server after the other."""
_BYE_SECONDS = 5
_TRYING = 100
_CANCEL_SECONDS = 5
_NO_SUCH_CALL = 481


class Caller:
    """Calls the sides of all calls, and knows which half of which call each INVITE is that is on its way."""

    def __init__(self, endpoint: Endpoint, kamailio: Address, on_over: Callable[[Half], None]) -> None:
        """`on_over` hears that a half was tried."""
        self._endpoint, self.kamailio, self._on_over = endpoint, kamailio, on_over
        self._halves: dict[tuple[str, str], Half] = {}

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return which half of which call an INVITE is, if it came from us."""
        if not self.is_own(invite):
            return None
        return self._halves.get((messages.text(invite.call_id), messages.text(invite.from_tag)))

    def is_own(self, invite: messages.Invite) -> bool:
        """Tell whether an INVITE came from us, in this run or the last."""
        return (invite.source, invite.port) == (self._endpoint.address, self._endpoint.transports.ports["udp"])

    def half(self, record: str) -> Half | None:
        """Return the half that is being dialled and has this record."""
        return next((half for half in self._halves.values() if half.record == record), None)

    async def invite(
        self, request: Request, half: Half, ended: asyncio.Event, on_ringing: Callable[[], None] = lambda: None
    ) -> bool:
        """Send a half's INVITE, and put down in the half what comes of it; True if it is taken.

        It is cancelled, or what it has opened is ended, if `ended` is set before. `on_ringing` hears each time that the
        side is said to ring. Raises OSError, MalformedError.
        """
        key = request.call_id, request.sender.tag or ""
        flow = await self._flow()
        self._halves[key] = half
        half.cause = ""  # it may be its second try, with another offer
        transaction = self._endpoint.send(request, flow)
        try:
            half.answer = await self._final(transaction, half, ended, on_ringing)
        finally:
            del self._halves[key]
            self._on_over(half)
        if half.answer is None or not half.answer.is_success:
            return False
        dialog = Dialog.of_caller(request, half.answer)
        ack = self._endpoint.send_ack(dialog.ack(request.cseq[0]), flow)
        transaction.resend_ack = lambda: flow.send(ack)
        if ended.is_set():
            await self.bye(dialog)
            return False
        half.dialog = dialog
        return True

    async def _final(
        self, transaction: ClientTransaction, half: Half, ended: asyncio.Event, on_ringing: Callable[[], None]
    ) -> Response | None:
        """Wait for the final answer; cancel if the call ends before. One that is refused has its answer on its way."""
        waiting = asyncio.create_task(_answer(transaction, on_ringing))
        ending = asyncio.create_task(ended.wait())
        try:
            await asyncio.wait([waiting, ending], timeout=_ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CANCEL_SECONDS):
                        if not half.is_refused:
                            await transaction.heard.wait()
                            self._endpoint.cancel(transaction)
                        await asyncio.wait([waiting])
            return waiting.result() if waiting.done() else None
        except TransactionError:
            return None
        finally:
            waiting.cancel()
            ending.cancel()

    async def send(self, request: Request) -> Response:
        """Return the final answer to a request within a dialog. Raises OSError, TransactionError."""
        return await self._endpoint.send(request, await self._flow()).final()

    async def bye(self, dialog: Dialog) -> bool:
        """End a dialog, and tell whether that reached somebody; who does not answer is left alone after a while."""
        with contextlib.suppress(OSError, TransactionError, MalformedError, TimeoutError):
            async with asyncio.timeout(_BYE_SECONDS):
                answer = await self.send(dialog.request("BYE"))
                return answer.status != _NO_SUCH_CALL
        return False

    async def _flow(self) -> Flow:
        return await self._endpoint.transports.flow("udp", self.kamailio)


async def _answer(transaction: ClientTransaction, on_ringing: Callable[[], None]) -> Response:
    """Return the final response; raise TransactionError."""
    async for response in transaction.responses():
        if response.is_final:
            return response
        if response.status > _TRYING:
            on_ringing()
    raise TransactionError("no answer")
