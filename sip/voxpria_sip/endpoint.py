"""A SIP user agent: sockets, transactions and the dialogs that live on them."""

import asyncio
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import structlog

from voxpria_sip.dialog import Dialog
from voxpria_sip.message import Headers, Request, Response
from voxpria_sip.transaction import ClientTransaction, ServerTransaction, Transactions, cancel_of, response_to
from voxpria_sip.transport import Flow, TransportName, Transports
from voxpria_sip.uri import MalformedError, Uri

METHODS = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, REFER"
_DEFAULT_PORT = 5060

log = structlog.get_logger(__name__)
Handler = Callable[[ServerTransaction], Awaitable[None]]


class DialogUser(Protocol):
    """What owns a dialog, and gets its requests."""

    async def on_request(self, transaction: ServerTransaction) -> None:
        """Answer a request in the dialog."""
        ...

    def on_ack(self, request: Request) -> None:
        """Take the ACK of a 2xx to an INVITE."""
        ...


class Endpoint:
    """One user agent on one address. `handlers` take requests outside dialogs, by method."""

    def __init__(
        self, address: str, handlers: Mapping[str, Handler], software: str, extensions: Collection[str] = ()
    ) -> None:
        """`software` is what Server and User-Agent say; `extensions` are option tags that such requests may require."""
        self.address, self._software, self._extensions = address, software, extensions
        self._handlers = handlers
        self._transactions = Transactions(self)
        self.transports = Transports(address, self._transactions.receive, self._transactions.lost)
        self._dialogs: dict[tuple[str, str], DialogUser] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close all sockets; what runs is cancelled."""
        for task in self._tasks:
            task.cancel()
        self._transactions.close()
        await self.transports.close()

    def contact(self, transport: TransportName, user: str = "sandbox") -> str:
        """Return the value of our Contact."""
        suffix = "" if transport == "udp" else f";transport={transport}"
        return f"<sip:{user}@{_in_uri(self.address)}:{self.transports.ports[transport]}{suffix}>"

    def adopt(self, dialog: Dialog, user: DialogUser) -> None:
        """Give the requests of a dialog to its user."""
        self._dialogs[dialog.key] = user

    def forget(self, dialog: Dialog) -> None:
        """Answer 481 to requests of this dialog from now on."""
        self._dialogs.pop(dialog.key, None)

    def send(self, request: Request, flow: Flow) -> ClientTransaction:
        """Send a request; adds Via, and User-Agent."""
        return self._transactions.send(self._signed(request, flow), flow)

    def cancel(self, invite: ClientTransaction) -> ClientTransaction:
        """Send the CANCEL of an INVITE that has had a provisional response."""
        return self._transactions.send(cancel_of(invite.request), invite.flow)

    def send_ack(self, request: Request, flow: Flow) -> bytes:
        """Send the ACK of a 2xx, and return its bytes to send again."""
        data = bytes(self._signed(request, flow))
        flow.send(data)
        return data

    async def flow_of(self, dialog: Dialog, flow: Flow) -> Flow:
        """Return the way to the next hop of a dialog: its connection if that is alive. Raises OSError."""
        if flow.transport != "udp" and flow.is_open:
            return flow
        hop = dialog.next_hop
        try:
            host = str(ipaddress.ip_address(hop.host.strip("[]")))
        except ValueError:
            return flow  # a name: whoever sent us the request knows the way on
        return await self.transports.flow(flow.transport, (host, hop.port or _DEFAULT_PORT))

    def _signed(self, request: Request, flow: Flow) -> Request:
        host = f"{_in_uri(self.address)}:{self.transports.ports[flow.transport]}"
        via = f"SIP/2.0/{flow.transport.upper()} {host};branch=z9hG4bK{secrets.token_hex(12)};rport"
        request.headers = Headers([("Via", via), *request.headers])
        request.headers.set("User-Agent", self._software)
        return request

    def on_request(self, transaction: ServerTransaction) -> None:
        """Hand a new request to its dialog, or to the handler of its method."""
        transaction.software = self._software
        task = asyncio.create_task(self._handle(transaction))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_ack(self, request: Request) -> None:
        """Hand an ACK to its dialog."""
        user = self._dialogs.get((request.call_id, request.recipient.tag or ""))
        if user is not None:
            user.on_ack(request)

    async def _handle(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        try:
            if request.recipient.tag is None:
                await self._handle_outside(transaction)
            elif user := self._dialogs.get((request.call_id, request.recipient.tag)):
                await user.on_request(transaction)
            else:
                respond(transaction, 481, "Call/Transaction Does Not Exist")
        except MalformedError as error:
            respond(transaction, 400, f"Bad Request: {error}")
        except Exception:
            log.exception("a request could not be handled", method=request.method)
            respond(transaction, 500, "Server Internal Error")

    async def _handle_outside(self, transaction: ServerTransaction) -> None:
        request = transaction.request
        handler = self._handlers.get(request.method)
        if handler is None:
            respond(transaction, 405, "Method Not Allowed", [("Allow", METHODS)])
        elif not is_refused_extension(transaction, self._extensions):
            Uri.parse(request.uri)
            await handler(transaction)


def is_refused_extension(transaction: ServerTransaction, known: Collection[str]) -> bool:
    """Refuse a request that requires an extension which is not among the known ones (RFC 3261 section 8.2.2.3)."""
    unknown = [tag for tag in transaction.request.headers.all("Require") if tag not in known]
    if unknown:
        respond(transaction, 420, "Bad Extension", [("Unsupported", ", ".join(unknown))])
    return bool(unknown)


def respond(
    transaction: ServerTransaction,
    status: int,
    reason: str,
    headers: list[tuple[str, str]] | None = None,
    *,
    tag: str | None = None,
    body: bytes = b"",
) -> Response:
    """Answer a request, saying what we are. All but 100 get a tag, random unless given."""
    response = response_to(transaction.request, status, reason, tag or new_tag())
    for name, value in [*(headers or []), ("Server", transaction.software)]:
        response.headers.add(name, value)
    if body:
        response.headers.add("Content-Type", "application/sdp")
        response.body = body
    transaction.respond(response)
    return response


def new_tag() -> str:
    """Return a fresh tag."""
    return secrets.token_hex(8)


def new_call_id(address: str) -> str:
    """Return a fresh Call-ID."""
    return f"{os.urandom(16).hex()}@{address}"


def _in_uri(address: str) -> str:
    return f"[{address}]" if ":" in address else address
