"""Dialogs (RFC 3261 section 12): who talks to whom, along which route, and which request comes next."""

from dataclasses import dataclass, field

from voxpria_sip.message import Headers, Request, Response
from voxpria_sip.uri import Address, MalformedError, Uri

_MAX_ROUTES = 16


@dataclass
class Dialog:
    """One side's view of a dialog."""

    call_id: str
    local: str
    """Our From (or To) as it stands in the headers, with its tag."""
    remote: str
    target: str
    """The peer's Contact URI."""
    routes: list[str]
    """The route set, nearest first."""
    local_cseq: int = 0
    remote_cseq: int = field(default=0)

    @classmethod
    def of_caller(cls, invite: Request, response: Response) -> "Dialog":
        """Return the dialog that a 2xx to our INVITE opens; raise MalformedError."""
        return cls(
            call_id=invite.call_id,
            local=invite.headers.get("From") or "",
            remote=response.headers.get("To") or "",
            target=_contact(response),
            routes=[*reversed(_routes(response))],
            local_cseq=invite.cseq[0],
        )

    @classmethod
    def of_called(cls, invite: Request, tag: str) -> "Dialog":
        """Return the dialog that our 2xx to an INVITE opens; raise MalformedError."""
        return cls(
            call_id=invite.call_id,
            local=f"{invite.headers.get('To')};tag={tag}",
            remote=invite.headers.get("From") or "",
            target=_contact(invite),
            routes=_routes(invite),
            remote_cseq=invite.cseq[0],
        )

    @property
    def key(self) -> tuple[str, str]:
        """What finds the dialog of an incoming request: Call-ID and our tag."""
        return self.call_id, Address.parse(self.local).tag or ""

    @property
    def remote_tag(self) -> str:
        """The peer's tag; raises MalformedError."""
        return Address.parse(self.remote).tag or ""

    @property
    def next_hop(self) -> Uri:
        """Where requests go first; raises MalformedError."""
        return Uri.parse(Address.parse(self.routes[0]).uri if self.routes else self.target)

    def is_in_order(self, request: Request) -> bool:
        """Whether a request of the peer's follows its last one (RFC 3261 section 12.2.2)."""
        number, _ = request.cseq
        if number <= self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def refresh_target(self, message: Request | Response) -> None:
        """Take the peer's new Contact (RFC 3261 section 12.2.1.2)."""
        if message.headers.get("Contact"):
            self.target = _contact(message)

    def request(self, method: str) -> Request:
        """Return the next request in the dialog, without its Via."""
        self.local_cseq += 1
        return self._write(method, self.local_cseq)

    def ack(self, invite_cseq: int) -> Request:
        """Return the ACK of a 2xx to our INVITE of this number."""
        return self._write("ACK", invite_cseq)

    def _write(self, method: str, cseq: int) -> Request:
        uri, routes = self.target, self.routes
        if routes and "lr" not in Uri.parse(Address.parse(routes[0]).uri).params:  # a strict router of old
            uri, routes = Address.parse(routes[0]).uri, [*routes[1:], f"<{self.target}>"]
        headers = Headers([("Max-Forwards", "70"), *(("Route", route) for route in routes)])
        headers.add("From", self.local)
        headers.add("To", self.remote)
        headers.add("Call-ID", self.call_id)
        headers.add("CSeq", f"{cseq} {method}")
        return Request(headers, method=method, uri=uri)


def _contact(message: Request | Response) -> str:
    contacts = message.headers.all("Contact")
    if not contacts:
        raise MalformedError("Contact is missing")
    uri = Address.parse(contacts[0]).uri
    Uri.parse(uri)
    return uri


def _routes(message: Request | Response) -> list[str]:
    routes = message.headers.all("Record-Route")
    if len(routes) > _MAX_ROUTES:
        raise MalformedError("too many routes")
    for route in routes:
        Uri.parse(Address.parse(route).uri)
    return routes
