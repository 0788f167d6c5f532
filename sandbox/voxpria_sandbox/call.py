"""One call, from either side: its dialog and its media, until somebody ends it."""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Literal

import structlog
from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import METHODS, Endpoint, respond
from voxpria_sip.message import Request
from voxpria_sip.transaction import ServerTransaction, TransactionError
from voxpria_sip.transport import Flow
from voxpria_sip.uri import MalformedError, Uri

from voxpria_sandbox.media.stream import MediaStream
from voxpria_sandbox.sip import sdp

_BYE_SECONDS = 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class End:
    """How a call ended."""

    by: Literal["us", "them"]
    """Whose BYE it was."""
    at: float
    """On the monotonic clock."""


class Call:
    """An established call. It answers what the peer asks in the dialog, and ends once."""

    def __init__(
        self, endpoint: Endpoint, dialog: Dialog, flow: Flow, media: MediaStream, session: sdp.Session
    ) -> None:
        self.dialog, self.media = dialog, media
        self.answered_at = time.monotonic()
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.referred_to: str | None = None
        """Where the peer asked us to call instead (Refer-To)."""
        self.referred = asyncio.Event()
        self._endpoint, self._flow = endpoint, flow
        self._session = session
        self._unacknowledged: dict[int, ServerTransaction] = {}
        endpoint.adopt(dialog, self)

    def _describe(self, offered: sdp.Audio | None) -> bytes:
        """Return our answer to an offer (media flow from then on), or an offer of ours."""
        if offered is None:
            return self._session.offer()
        self.media.connect(offered, self._session.secret)
        return self._session.answer(offered)

    def take_answer(self, body: bytes) -> None:
        """Take the answer to our offer; raise MalformedError or sdp.UnacceptableError."""
        answered = sdp.parse(body)
        self.media.connect(answered, self._session.secret)

    async def hang_up(self) -> None:
        """Send BYE, and wait a little for its answer; ended already is no error."""
        if self.ended.done():
            return
        self.end("us")
        with contextlib.suppress(OSError, TransactionError, MalformedError, TimeoutError):
            async with asyncio.timeout(_BYE_SECONDS):
                flow = await self._endpoint.flow_of(self.dialog, self._flow)
                await self._endpoint.send(self.dialog.request("BYE"), flow).final()

    async def refer(self, target: str) -> int:
        """Ask the peer to call a number or a URI instead (RFC 3515, without a subscription: RFC 4488).

        Returns its final code. Raises OSError, TransactionError or TimeoutError when the peer does not answer.
        """
        is_uri = ":" in target
        uri = target if is_uri else f"sip:{target}@{Uri.parse(self.dialog.target).host}"
        request = self.dialog.request("REFER")
        request.headers.add("Refer-To", f"<{uri}>")
        request.headers.add("Refer-Sub", "false")
        request.headers.add("Contact", self._endpoint.contact(self._flow.transport))
        async with asyncio.timeout(_BYE_SECONDS):
            flow = await self._endpoint.flow_of(self.dialog, self._flow)
            return (await self._endpoint.send(request, flow).final()).status

    def end(self, by: Literal["us", "them"]) -> None:
        """Close the media; the first end counts."""
        if not self.ended.done():
            self.ended.set_result(End(by, time.monotonic()))
            self.media.close()
            self._endpoint.forget(self.dialog)

    async def on_request(self, transaction: ServerTransaction) -> None:
        """Answer a request in the dialog."""
        request = transaction.request
        if not self.dialog.is_in_order(request):
            respond(transaction, 500, "Server Internal Error: CSeq is out of order")
            return
        match request.method:
            case "BYE":
                self.end("them")
                respond(transaction, 200, "OK")
            case "INVITE":
                self._on_offer(transaction)
            case "REFER":
                self._on_refer(transaction)
            case "INFO" | "OPTIONS":
                respond(transaction, 200, "OK")
            case _:
                respond(transaction, 501, "Not Implemented")

    def _on_refer(self, transaction: ServerTransaction) -> None:
        """Take a transfer: remember whereto. Who leads this call hangs up, and may call there."""
        self.referred_to = transaction.request.headers.get("Refer-To")
        self.referred.set()
        respond(transaction, 202, "Accepted", [("Refer-Sub", "false")])

    def _on_offer(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        try:
            offered = sdp.parse(request.body) if request.body else None
        except sdp.UnacceptableError as error:
            respond(transaction, 488, f"Not Acceptable Here: {error}")
            return
        self.dialog.refresh_target(request)
        self.accept(transaction, offered)

    def accept(self, transaction: ServerTransaction, offered: sdp.Audio | None) -> None:
        """Answer an INVITE with 200 and our session description."""
        self._unacknowledged[transaction.request.cseq[0]] = transaction
        contact = self._endpoint.contact(transaction.flow.transport)
        headers = [("Record-Route", route) for route in transaction.request.headers.lines("Record-Route")]
        headers += [("Contact", contact), ("Allow", METHODS)]
        tag = self.dialog.key[1]
        respond(transaction, 200, "OK", headers, tag=tag, body=self._describe(offered))

    def on_ack(self, request: Request) -> None:
        """Take the ACK; it carries the answer if the offer was ours."""
        if (invite := self._unacknowledged.pop(request.cseq[0], None)) is not None:
            invite.acknowledged.set()
        if not request.body:
            return
        try:
            self.take_answer(request.body)
        except (MalformedError, sdp.UnacceptableError) as error:
            log.warning("the answer in an ACK is of no use", problem=str(error))
