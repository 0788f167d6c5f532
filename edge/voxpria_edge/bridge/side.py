"""One side of a call in whose middle we are: its requests within the call, and what we answer."""

import secrets
from typing import Literal, Protocol

from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import is_refused_extension, respond
from voxpria_sip.message import Request, Response
from voxpria_sip.transaction import ServerTransaction

from voxpria_edge.bridge import session_timer
from voxpria_edge.media.rtpengine import RtpengineError

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, REFER, NOTIFY, MESSAGE"
EXTENSIONS = ("timer", "100rel")
"""What an INVITE or UPDATE may require: to such a caller no answer is provisional, so none must be reliable."""
_LONGEST_RETRY_SECONDS = 10
Who = Literal["callee", "agent"]
"""Who it is; whoever is not the agent is the callee, also if it called in."""
CALLEE: Who = "callee"
AGENT: Who = "agent"


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

    def moved(self, side: "Side") -> None:
        """Keep where a side is from now on."""
        ...

    def over(self, side: "Side") -> None:
        """One side has hung up: so does the other."""
        ...

    def unacknowledged(self) -> None:
        """End the call: a side never said that it has our answer to its INVITE."""
        ...


class Side:
    """One of the two, as its dialog is used."""

    def __init__(self, middle: InTheMiddle, dialog: Dialog, who: Who) -> None:
        self.dialog, self.who = dialog, who
        self._middle = middle
        self.is_over = False
        """Whether it has hung up, or was hung up on."""
        self._has_hung_up = False
        self._answered: ServerTransaction | None = None
        """Its last INVITE that we took."""
        self._is_busy = False
        """Whether an offer of its is being looked at."""

    def accept(
        self, transaction: ServerTransaction, headers: list[tuple[str, str]], answer: str, tag: str = ""
    ) -> None:
        """Answer its INVITE or UPDATE with 200; `tag` is ours if the INVITE began the call."""
        if transaction.request.method == "INVITE":
            self._answered = transaction
            transaction.on_unacknowledged = self._middle.unacknowledged
        said = [("Contact", self._middle.contact), ("Allow", ALLOW), *session_timer.agreed(transaction.request)]
        respond(transaction, 200, "OK", [*headers, *said], tag=tag or None, body=answer.encode())

    async def on_request(self, transaction: ServerTransaction) -> None:
        """Answer a request within the call."""
        request = transaction.request
        if self._has_hung_up:
            respond(transaction, 481, "Call/Transaction Does Not Exist")
            return
        if not self.dialog.is_in_order(request):
            respond(transaction, 500, "Server Internal Error: CSeq is out of order")
            return
        match request.method:
            case "BYE":
                self._has_hung_up = True
                respond(transaction, 200, "OK")
                self._middle.over(self)
            case "INVITE" | "UPDATE":
                await self._refresh(transaction)
            case "REFER" | "NOTIFY" | "INFO" | "MESSAGE":
                await self._pass_on(transaction)
            case "OPTIONS":
                respond(transaction, 200, "OK", [("Allow", ALLOW)])
            case _:
                respond(transaction, 501, "Not Implemented", [("Allow", ALLOW)])

    async def _refresh(self, transaction: ServerTransaction) -> None:
        """Take a changed session, or one only kept alive; one at a time (RFC 3261 section 14.2, RFC 3311)."""
        if is_refused_extension(transaction, EXTENSIONS):
            return
        if self._is_busy:
            retry = secrets.randbelow(_LONGEST_RETRY_SECONDS)
            respond(transaction, 500, "Server Internal Error", [("Retry-After", str(retry))])
            return
        if self._owes_an_answer():
            respond(transaction, 491, "Request Pending")
            return
        self._is_busy = True
        try:
            await self._settle(transaction)
        finally:
            self._is_busy = False

    def _owes_an_answer(self) -> bool:
        """Whether an offer of ours, in the 200 to its INVITE, is still to be answered by its ACK."""
        invite = self._answered
        return invite is not None and not invite.request.body and not invite.acknowledged.is_set()

    async def _settle(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        respond(transaction, 100, "Trying")
        if not await self._middle.is_connected():
            respond(transaction, 491, "Request Pending")
            return
        answer: str | None = ""
        if request.body or request.method == "INVITE":
            # where it offers nothing we do, what we would answer to what it said last; its ACK answers that
            offered = request.body.decode(errors="replace") or self._middle.said(self)
            answer = await self._answer_to(offered)
        if answer is None:
            respond(transaction, 488, "Not Acceptable Here")
            return
        place = self.dialog.target
        self.dialog.refresh_target(request)
        if self.dialog.target != place:
            self._middle.moved(self)
        self.accept(transaction, [], answer)

    async def _answer_to(self, offered: str) -> str | None:
        try:
            return await self._middle.renegotiate(self, offered)
        except RtpengineError:
            return None

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
        if self._answered is not None and self._answered.request.cseq[0] == request.cseq[0]:
            is_first = not self._answered.acknowledged.is_set()
            self._answered.acknowledged.set()
            if is_first and request.body and not self._answered.request.body:
                self._middle.take_answer(self, request.body.decode(errors="replace"))
