"""An INVITE of ours, from the first attempt over digest to an established call, a refusal, or our own CANCEL."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from voxpria_sip.dialog import Dialog
from voxpria_sip.endpoint import METHODS, Endpoint, new_call_id, new_tag
from voxpria_sip.message import Headers, Request, Response
from voxpria_sip.transaction import ClientTransaction, TransactionError
from voxpria_sip.transport import Flow

from voxpria_sandbox.call import Call
from voxpria_sandbox.media.stream import MediaStream
from voxpria_sandbox.sip import sdp
from voxpria_sandbox.sip.digest import Credentials, answer

RING_SECONDS = 60
_ABANDON_SECONDS = 2
_CHALLENGES = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}


@dataclass(frozen=True)
class Invitee:
    """Who is called, and by whom."""

    uri: str
    caller: str
    credentials: Credentials | None = None


class Invitation:
    """One call being set up over one flow. Its Call-ID is known from the start."""

    def __init__(self, endpoint: Endpoint, flow: Flow, invitee: Invitee, media: MediaStream) -> None:
        self._endpoint, self._flow, self._invitee, self._media = endpoint, flow, invitee, media
        self._session = sdp.Session(endpoint.address, media.port)
        self._offer = self._session.offer()
        self._from = f"<sip:{invitee.caller}@{endpoint.address}>;tag={new_tag()}"
        self.call_id = new_call_id(endpoint.address)

    async def answered(self, heard: Callable[[Response], None]) -> Call | Response:
        """Return the call, or the response that refused it; `heard` is told of every response.

        Raises TransactionError (nobody answered), TimeoutError (it only rang), OSError, MalformedError or
        sdp.UnacceptableError (a 2xx that we can't use). Cancelled or timed out, it sends CANCEL.
        """
        transaction, response = await self._attempt(self._request(1, None), heard)
        if response.status in _CHALLENGES and self._invitee.credentials is not None:
            authorization = self._authorization(response, self._invitee.credentials)
            if authorization is not None:
                transaction, response = await self._attempt(self._request(2, authorization), heard)
        return await self._established(transaction, response) if response.is_success else response

    async def _attempt(self, request: Request, heard: Callable[[Response], None]) -> tuple[ClientTransaction, Response]:
        transaction = self._endpoint.send(request, self._flow)
        try:
            async with asyncio.timeout(RING_SECONDS):
                async for response in transaction.responses():
                    heard(response)
                    if response.is_final:
                        return transaction, response
        except (TimeoutError, asyncio.CancelledError):
            await self._abandon(transaction, heard)
            raise
        raise TransactionError("no answer")

    def _request(self, number: int, authorization: tuple[str, str] | None) -> Request:
        headers = Headers([("Max-Forwards", "70"), ("From", self._from), ("To", f"<{self._invitee.uri}>")])
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{number} INVITE")
        headers.add("Contact", self._endpoint.contact(self._flow.transport, "carrier"))
        headers.add("Allow", METHODS)
        headers.add("Content-Type", "application/sdp")
        if authorization is not None:
            headers.add(*authorization)
        return Request(headers, method="INVITE", uri=self._invitee.uri, body=self._offer)

    def _authorization(self, response: Response, credentials: Credentials) -> tuple[str, str] | None:
        asked, answering = _CHALLENGES[response.status]
        value = answer(response.headers.lines(asked), credentials, "INVITE", self._invitee.uri)
        return (answering, value) if value else None

    async def _established(self, transaction: ClientTransaction, response: Response) -> Call:
        dialog = Dialog.of_caller(transaction.request, response)
        call = Call(self._endpoint, dialog, self._flow, self._media, self._session)
        flow = await self._endpoint.flow_of(dialog, self._flow)
        ack = self._endpoint.send_ack(dialog.ack(transaction.request.cseq[0]), flow)
        transaction.resend_ack = lambda: flow.send(ack)
        try:
            call.take_answer(response.body)
        except Exception:
            await call.hang_up()
            raise
        return call

    async def _abandon(self, transaction: ClientTransaction, heard: Callable[[Response], None]) -> None:
        """Send CANCEL, once anything has been heard (RFC 3261 section 9.1); a call answered all the same is ended."""
        with contextlib.suppress(TransactionError, TimeoutError):
            async with asyncio.timeout(_ABANDON_SECONDS):
                await transaction.heard.wait()
                if not transaction.is_final:
                    self._endpoint.cancel(transaction)
                response = await transaction.final()
                heard(response)
                if response.is_success:
                    await (await self._established(transaction, response)).hang_up()
