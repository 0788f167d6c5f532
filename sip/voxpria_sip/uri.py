"""SIP URIs and the addresses in headers (RFC 3261 sections 19.1, 20.10, 20.42)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@<>\"\s]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::(?P<port>\d{1,5}))?"
    r"(?P<params>(?:;[^;?<>\"\s]+)*)(?:\?[^<>\"\s]*)?",
    re.IGNORECASE,
)
_NAME_ADDR = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^<"]*)\s*<(?P<uri>[^<>]+)>\s*(?P<rest>.*)', re.DOTALL)
_VIA = re.compile(
    r"SIP\s*/\s*2\.0\s*/\s*(?P<transport>[A-Za-z]{2,8})\s+"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?:\s*:\s*(?P<port>\d{1,5}))?\s*(?P<rest>;.*)?",
    re.DOTALL,
)
_LAST_PORT = 65535


class MalformedError(ValueError):
    """These bytes or this text are not what they should be; the message says what is wrong."""


@dataclass(frozen=True)
class Uri:
    """A `sip:` or `sips:` URI; its headers part is dropped."""

    scheme: str
    user: str | None
    host: str
    port: int | None = None
    params: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Uri":
        """Return the URI; raise MalformedError."""
        found = _URI.fullmatch(text.strip())
        if found is None:
            raise MalformedError("not a SIP URI")
        return cls(
            found["scheme"].lower(),
            found["user"],
            found["host"].lower(),
            _port(found["port"]),
            parameters(found["params"]),
        )

    @property
    def transport(self) -> str:
        """`udp`, `tcp` or `tls` (or what the URI claims)."""
        asked = (self.params.get("transport") or "udp").lower()
        return "tls" if self.scheme == "sips" or asked == "tls" else asked

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user is not None else ""
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}:{user}{self.host}{port}{_write(self.params)}"


@dataclass(frozen=True)
class Address:
    """The value of From, To, Contact, Route or Record-Route: a URI and the header's own parameters."""

    uri: str
    params: Mapping[str, str | None]

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address, its display name dropped; raise MalformedError."""
        found = _NAME_ADDR.fullmatch(text)
        if found:
            return cls(found["uri"].strip(), parameters(found["rest"]))
        uri, semicolon, rest = text.strip().partition(";")
        if not uri or any(character in uri for character in '<>" \t'):
            raise MalformedError("not an address")
        return cls(uri, parameters(semicolon + rest))

    @property
    def tag(self) -> str | None:
        """The tag of a From or To."""
        return self.params.get("tag")


@dataclass(frozen=True)
class Via:
    """One hop of a Via (RFC 3261 section 20.42, RFC 3581)."""

    transport: str
    host: str
    port: int | None
    params: Mapping[str, str | None]

    @classmethod
    def parse(cls, text: str) -> "Via":
        """Return the hop; raise MalformedError."""
        found = _VIA.fullmatch(text.strip())
        if found is None:
            raise MalformedError("not a Via")
        return cls(
            found["transport"].upper(), found["host"].lower(), _port(found["port"]), parameters(found["rest"] or "")
        )

    def __str__(self) -> str:
        port = f":{self.port}" if self.port is not None else ""
        return f"SIP/2.0/{self.transport} {self.host}{port}{_write(self.params)}"


def split(text: str, separator: str = ",") -> list[str]:
    """Split a header's value at `separator` where it is outside quotes and angle brackets."""
    return [part.strip() for part in _split(text, separator) if part.strip()]


def _split(text: str, separator: str) -> Iterator[str]:
    start, is_quoted, depth, is_escaped = 0, False, 0, False
    for at, character in enumerate(text):
        if is_escaped:
            is_escaped = False
        elif is_quoted:
            is_escaped, is_quoted = character == "\\", character != '"'
        elif character == '"':
            is_quoted = True
        elif character in "<>":
            depth += 1 if character == "<" else -1
        elif character == separator and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def parameters(text: str) -> dict[str, str | None]:
    """Return the parameters in `;a=1;b`, names in lower case; raise MalformedError if something else is there."""
    found: dict[str, str | None] = {}
    first, *rest = [*_split(text, ";")]
    if first.strip():
        raise MalformedError("text where parameters should be")
    for part in rest:
        name, equals, value = part.partition("=")
        if name.strip():
            found[name.strip().lower()] = value.strip() if equals else None
    return found


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    port = int(text)
    if not 0 < port <= _LAST_PORT:
        raise MalformedError("no such port")
    return port


def _write(params: Mapping[str, str | None]) -> str:
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params.items())
