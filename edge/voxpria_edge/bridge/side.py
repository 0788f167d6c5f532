"""One side of a call in whose middle we are: its requests within the call, and what we answer."""

from typing import Literal, Protocol

from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import respond
from voxpria_sip.message import Request, Response
from voxpria_sip.transaction import ServerTransaction

from voxpria_edge.media.rtpengine import RtpengineError

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, REFER, NOTIFY, MESSAGE"
Who = Literal["callee", "agent"]
"""Who it is; whoever is not the agent is the callee, also if it called in."""


class InTheMiddle(Protocol):
    """What a side needs of the call between it and the other (`bridged.Bridged`)."""

    @property
    def contact(self) -> str:
        """Where requests within the call reach us."""
        ...

    async def is_connected(self) -> bool:
        """Wait a little until both are connected, if they are about to be."""
        ...

    async def renegotiate(self, side: "Side", offered: str) -> str | None:
        """Return the answer to a side's new offer; None if it must be encrypted and is not."""
        ...

    def said(self, side: "Side") -> str:
        """Return what a side said of its media last, held or not."""
        ...

    def take_answer(self, side: "Side", answered: str) -> None:
        """Take what a side answers to an offer of ours."""
        ...

    async def pass_on(self, side: "Side", request: Request) -> Response | None:
        """Send a side's request to the other, and return what that answers; None if there is no answer."""
        ...

    def over(self, side: "Side") -> None:
        """One side has hung up: so does the other."""
        ...


class Side:
    """One of the two, as its dialog is used."""

    def __init__(self, middle: InTheMiddle, dialog: Dialog, who: Who) -> None:
        self.dialog, self.who = dialog, who
        self._middle = middle
        self.is_over = False
        self.answered: ServerTransaction | None = None
        """Its last INVITE that we took."""

    async def on_request(self, transaction: ServerTransaction) -> None:
        """Answer a request within the call."""
        request = transaction.request
        match request.method:
            case "BYE":
                respond(transaction, 200, "OK")
                self._middle.over(self)
            case "INVITE" | "UPDATE" if request.body:
                await self._renegotiate(transaction, request.body.decode(errors="replace"))
            case "INVITE":
                # we offer (RFC 3261 section 14.2) what we would answer to what it said last, and its ACK answers that
                await self._renegotiate(transaction, self._middle.said(self))
            case "REFER" | "NOTIFY" | "INFO" | "MESSAGE":
                await self._pass_on(transaction)
            case "UPDATE" | "OPTIONS":
                respond(transaction, 200, "OK", [("Allow", ALLOW)])
            case _:
                respond(transaction, 501, "Not Implemented", [("Allow", ALLOW)])

    async def _renegotiate(self, transaction: ServerTransaction, offered: str) -> None:
        request = transaction.request
        respond(transaction, 100, "Trying")
        if not await self._middle.is_connected():
            respond(transaction, 491, "Request Pending")
            return
        try:
            answer = await self._middle.renegotiate(self, offered)
        except RtpengineError:
            answer = None
        if answer is None:
            respond(transaction, 488, "Not Acceptable Here")
            return
        self.dialog.refresh_target(request)
        if request.method == "INVITE":
            self.answered = transaction
        contact = self._middle.contact
        respond(transaction, 200, "OK", [("Contact", contact), ("Allow", ALLOW)], body=answer.encode())

    async def _pass_on(self, transaction: ServerTransaction) -> None:
        """Let the two settle it: who is transferred acts on the REFER, as in a call that came in."""
        request = transaction.request
        answer = await self._middle.pass_on(self, request) if await self._middle.is_connected() else None
        if answer is None:
            respond(transaction, 480, "Temporarily Unavailable")
            return
        headers = [("Allow", ALLOW)]
        if request.method == "REFER" and answer.is_success:  # it opens a dialog (RFC 3515 section 2.2)
            headers.append(("Contact", self._middle.contact))
        respond(transaction, answer.status, answer.reason, headers)

    def on_ack(self, request: Request) -> None:
        """Take the ACK of our 200: it need not be repeated any more."""
        if self.answered is not None and self.answered.request.cseq[0] == request.cseq[0]:
            is_first = not self.answered.acknowledged.is_set()
            self.answered.acknowledged.set()
            if is_first and request.body and not self.answered.request.body:
                self._middle.take_answer(self, request.body.decode(errors="replace"))
