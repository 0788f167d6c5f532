"""SIP messages (RFC 3261 section 7): hostile bytes are parsed within bounds, or refused."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from voxpria_sip.uri import Address, MalformedError, Via, split

MAX_HEAD_BYTES = 32768
MAX_BODY_BYTES = 65536
MAX_HEADERS = 256

_COMPACT = {
    "c": "Content-Type",
    "e": "Content-Encoding",
    "f": "From",
    "i": "Call-ID",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "o": "Event",
    "r": "Refer-To",
    "s": "Subject",
    "t": "To",
    "u": "Allow-Events",
    "v": "Via",
    "x": "Session-Expires",
}
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) (\S{1,2048}) SIP/2\.0")
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6]\d\d) ?([^\r\n]*)")
_HEADER_NAME = re.compile(r"[A-Za-z0-9.!%*_+`'~-]{1,64}")
_CSEQ = re.compile(r"(\d{1,10})\s+([A-Z]{1,20})")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LAST_CSEQ = 2**31


class Headers:
    """The headers of a message, in order; names are compared without case, compact forms expanded."""

    def __init__(self, fields: list[tuple[str, str]] | None = None) -> None:
        self._fields: list[tuple[str, str]] = []
        for name, value in fields or []:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Append a header; raise MalformedError if it could not be written as one line."""
        if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value):
            raise MalformedError("not a header")
        self._fields.append((_COMPACT.get(name.lower(), name), value.strip(" \t")))

    def set(self, name: str, value: str) -> None:
        """Replace all headers of this name by one."""
        self._fields = [(n, v) for n, v in self._fields if n.lower() != name.lower()]
        self.add(name, value)

    def replace_first(self, name: str, value: str) -> None:
        """Replace the first value of a header, which may share its line with others."""
        _, *rest = self.all(name)
        at = next(i for i, (n, _) in enumerate(self._fields) if n.lower() == name.lower())
        others = [(n, v) for n, v in self._fields if n.lower() != name.lower()]
        self._fields = [*others[:at], *((name, v) for v in (value, *rest)), *others[at:]]

    def get(self, name: str) -> str | None:
        """Return the first header of this name."""
        return next((v for n, v in self._fields if n.lower() == name.lower()), None)

    def lines(self, name: str) -> list[str]:
        """Return every header of this name as it stands."""
        return [v for n, v in self._fields if n.lower() == name.lower()]

    def all(self, name: str) -> list[str]:
        """Return every value of a header that is a comma-separated list (Via, Route, Contact, Require)."""
        return [value for line in self.lines(name) for value in split(line)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)


@dataclass
class Message:
    """What requests and responses share."""

    headers: Headers
    body: bytes = field(default=b"", kw_only=True)

    @property
    def call_id(self) -> str:
        """The Call-ID."""
        return _required(self.headers, "Call-ID")

    @property
    def cseq(self) -> tuple[int, str]:
        """The sequence number and the method."""
        found = _CSEQ.fullmatch(_required(self.headers, "CSeq"))
        if found is None or int(found[1]) >= _LAST_CSEQ:
            raise MalformedError("CSeq is malformed")
        return int(found[1]), found[2]

    @property
    def via(self) -> Via:
        """The topmost Via."""
        return Via.parse(next(iter(self.headers.all("Via")), ""))

    @property
    def sender(self) -> Address:
        """From."""
        return Address.parse(_required(self.headers, "From"))

    @property
    def recipient(self) -> Address:
        """To."""
        return Address.parse(_required(self.headers, "To"))

    @property
    def content_length(self) -> int | None:
        """Content-Length, or None if absent; raises MalformedError for nonsense, or more than is taken."""
        text = self.headers.get("Content-Length")
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > MAX_BODY_BYTES:
            raise MalformedError("Content-Length is malformed or too large")
        return int(text)

    def _first_line(self) -> str:
        raise NotImplementedError

    def __bytes__(self) -> bytes:
        self.headers.set("Content-Length", str(len(self.body)))
        lines = [self._first_line(), *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass
class Request(Message):
    """A request."""

    method: str = field(kw_only=True)
    uri: str = field(kw_only=True)

    def _first_line(self) -> str:
        return f"{self.method} {self.uri} SIP/2.0"


@dataclass
class Response(Message):
    """A response."""

    status: int = field(kw_only=True)
    reason: str = field(kw_only=True)

    @property
    def is_final(self) -> bool:
        """Whether no other response follows."""
        return self.status >= 200

    @property
    def is_success(self) -> bool:
        """Whether this is a 2xx."""
        return 200 <= self.status < 300

    def _first_line(self) -> str:
        return f"SIP/2.0 {self.status} {self.reason}"


def parse(data: bytes) -> Request | Response:
    """Return the message in a datagram; raise MalformedError."""
    head, end, body = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not end:
        raise MalformedError("the headers do not end")
    message = parse_head(head)
    length = message.content_length
    if (length is not None and length > len(body)) or len(body) > MAX_BODY_BYTES:
        raise MalformedError("the body is not as long as it says")
    message.body = body[:length]
    return message


def parse_head(head: bytes) -> Request | Response:
    """Return the message whose head this is, its body empty; raise MalformedError."""
    if len(head) > MAX_HEAD_BYTES:
        raise MalformedError("the head is too long")
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("the head is not UTF-8") from error
    first, *lines = re.sub(r"\r\n[ \t]+", " ", text).split("\r\n")
    if len(lines) > MAX_HEADERS:
        raise MalformedError("too many headers")
    message = _start(first, Headers([_header(line) for line in lines]))
    _check(message)
    return message


def _start(line: str, headers: Headers) -> Request | Response:
    if found := _STATUS_LINE.fullmatch(line):
        return Response(headers, status=int(found[1]), reason=found[2])
    if found := _REQUEST_LINE.fullmatch(line):
        return Request(headers, method=found[1], uri=found[2])
    raise MalformedError("neither a request nor a response")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise MalformedError("a line that is no header")
    return name.rstrip(" \t"), value


def _check(message: Request | Response) -> None:
    """Raise MalformedError unless all that every message needs is there and well formed (RFC 3261 section 8.1.1)."""
    _, method = message.cseq
    _ = message.via, message.recipient, message.call_id, message.content_length
    if message.sender.tag is None and isinstance(message, Request):
        raise MalformedError("From has no tag")
    if isinstance(message, Request) and message.method != method:
        raise MalformedError("CSeq names another method")


def _required(headers: Headers, name: str) -> str:
    value = headers.get(name)
    if not value:
        message = f"{name} is missing"
        raise MalformedError(message)
    return value
