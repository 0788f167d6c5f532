"""The routes as the edge holds them: everything it needs to judge and dial a call on its own.

A snapshot travels, and lies on disk, as lines of JSON: a `Head`, any number of `Numbers`, an `End`. Neither side ever
has to hold more than a line beside what it keeps, nor to stop for longer than a line takes.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

Mode = Literal["test", "live"]
Transport = Literal["udp", "tcp", "tls"]
MediaEncryption = Literal["disabled", "allowed", "required"]
"""Whether media is SRTP (SDES): never, where the other side does it, or always."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What is spoken to whoever is recorded, before the recording begins."""

    text: str
    language: str
    """BCP 47 tag."""


class Trunk(msgspec.Struct, frozen=True, kw_only=True):
    """A trunk: who may call in through it, and the SIP server that calls go out to.

    `username` and `password` answer the server's digest challenge (RFC 8760); both are None where the
    server knows us by our address. The password is in clear here, so a snapshot is a secret as a whole.
    """

    id: str
    account_id: str
    mode: Mode
    name: str
    provider: Literal["elevenlabs", "openai", "generic"]
    server: str
    """Host of the request URI; also the name that a TLS certificate must carry."""
    port: int
    transport: Transport
    next_hop: str | None = None
    """`host:port` to send to instead of resolving `server`: the sandbox's stand-in in test mode."""
    request_user: str | None = None
    """User part of the request URI; None means the dialled number."""
    username: str | None = None
    password: str | None = None
    allowed_addresses: tuple[str, ...] = ()
    """IP addresses and CIDR networks that may call in. Empty: nobody."""
    is_open: bool = False
    """True lets every address call in."""
    is_recorded: bool = False
    announcement: Announcement | None = None
    """Spoken in calls that are recorded and go through it; where it can't be, they are not recorded."""
    barred_reason: str | None = None
    """Why its server can't be dialled, as a sentence without its full stop."""
    country: str | None = None
    """ISO 3166 code of the country whose national numbers its carrier sends."""
    max_concurrent_calls: int | None = None
    """Calls that may be open through it at once, either way; None is no limit."""
    max_calls_per_second: float | None = None
    failover_trunk_ids: tuple[str, ...] = ()
    """Trunks that take its calls, in turn, where its own server does not."""
    ring_timeout_seconds: int | None = None
    """How long its server may ring; None is the edge's own limit."""
    is_identity_asserted: bool = True
    """Whether calls that go out through it carry the number in P-Asserted-Identity too (RFC 3325)."""
    is_registered: bool = False
    """True has the edge register with its server (RFC 3261 section 10)."""
    media_encryption: MediaEncryption = "allowed"
    codecs: tuple[str, ...] = ()
    """Codecs by name, the preferred first: the only ones that this side speaks. Empty: whatever the other side does."""


class Number(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A phone number: through which trunk its calls arrive, and where they go."""

    id: str
    e164: str
    account_id: str
    mode: Mode
    carrier_trunk_id: str
    agent_trunk_id: str | None
    """The trunk whose server takes the call; None when there is none (`disabled_reason` says why)."""
    disabled_reason: str | None = None
    """Why calls are refused (480), as a sentence without its full stop; None for a number in service."""
    agent_id: str | None = None
    first_message: str | None = None
    language: str | None = None
    max_duration_seconds: int = 3600
    ring_timeout_seconds: int | None = None
    """How long its calls may ring; None is the trunk's limit."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one account may have going on in one mode, on one edge; None is no limit, 0 none at all."""

    max_concurrent_calls: int | None = None
    max_calls_per_second: float | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent state of all routes. A higher version is a later state."""

    version: int
    trunks: dict[str, Trunk]
    numbers: dict[str, tuple[Number, ...]]
    """By E.164 number. Several accounts may hold one number; see `decide`."""
    limits: dict[str, Limits] = {}
    """By account id; an account that is not here has `default_limits`."""
    default_limits: Limits = Limits()


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """What leads from version `base` to version `version`: each object as it is at `version`."""

    base: int
    version: int
    trunks: dict[str, Trunk | None] = {}
    """By id; None is removed."""
    numbers: tuple[Number, ...] = ()
    """New or changed."""
    removed: tuple[tuple[str, str], ...] = ()
    """Numbers that are gone: E.164 number and id."""
    limits: dict[str, Limits] = {}
    default_limits: Limits = Limits()


EMPTY = Snapshot(version=0, trunks={}, numbers={})
"""What an edge holds before the control plane has ever answered it."""


class Head(msgspec.Struct, frozen=True, kw_only=True, tag_field="part", tag="head"):
    """The first line of a snapshot: all of it but the numbers."""

    version: int
    trunks: tuple[Trunk, ...]
    limits: dict[str, Limits] = {}
    default_limits: Limits = Limits()


class Numbers(msgspec.Struct, frozen=True, kw_only=True, tag_field="part", tag="numbers"):
    """A line of some numbers. What many of them have in common is said, and held, once."""

    shared: tuple[Number, ...]
    """Without `id` and `e164`."""
    numbers: tuple[tuple[str, str, int], ...]
    """`id`, `e164`, and the place in `shared` of all the rest."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag_field="part", tag="end"):
    """The last line: without it the snapshot is not whole."""

    numbers: int


class IncompleteError(ValueError):
    """A snapshot that breaks off, or whose lines are not in their order."""


NUMBERS_A_LINE = 500
"""Few enough that no line holds anything up while it is read: a millisecond or two."""
_reader = msgspec.json.Decoder(Head | Numbers | End)


def line(part: Head | Numbers | End) -> bytes:
    """Return a part as a line of JSON, its newline included."""
    return msgspec.json.encode(part) + b"\n"


def lines(snapshot: Snapshot) -> Iterator[bytes]:
    """Give a snapshot line by line, in an order that `Reader` takes."""
    trunks = tuple(snapshot.trunks.values())
    yield line(
        Head(
            version=snapshot.version,
            trunks=trunks,
            limits=snapshot.limits,
            default_limits=snapshot.default_limits,
        )
    )
    every = (number for held in snapshot.numbers.values() for number in held)
    count = 0
    while some := list(itertools.islice(every, NUMBERS_A_LINE)):
        yield line(_packed(some))
        count += len(some)
    yield line(End(numbers=count))


def _packed(numbers: Sequence[Number]) -> Numbers:
    shared: dict[Number, int] = {}
    places = [shared.setdefault(replace(number, id="", e164=""), len(shared)) for number in numbers]
    named = tuple((n.id, n.e164, place) for n, place in zip(numbers, places, strict=True))
    return Numbers(shared=tuple(shared), numbers=named)


class Reader:
    """Puts a snapshot together from its lines. Each `take` is short; what numbers have in common is held once."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._numbers: dict[str, tuple[Number, ...]] = {}
        self._shared: dict[Number, Number] = {}
        self._count = 0
        self._is_whole = False

    def take(self, text: bytes | bytearray) -> None:
        """Take the next line. Raises `msgspec.ValidationError`, `msgspec.DecodeError` or `IncompleteError`."""
        part = _reader.decode(text)
        if self._is_whole or isinstance(part, Head) is not (self._head is None):
            raise IncompleteError("the lines are not in their order")
        match part:
            case Head():
                self._head = part
            case Numbers():
                self._add(part)
            case End():
                if part.numbers != self._count:
                    raise IncompleteError("some numbers are missing")
                self._is_whole = True

    def _add(self, part: Numbers) -> None:
        shared = [self._shared.setdefault(each, each) for each in part.shared]
        held = self._numbers
        for id_, e164, place in part.numbers:
            if not 0 <= place < len(shared):
                raise IncompleteError("a number without its route")
            number = replace(shared[place], id=id_, e164=e164)
            before = held.get(e164)
            held[e164] = (number,) if before is None else (*before, number)
        self._count += len(part.numbers)

    def snapshot(self) -> Snapshot:
        """Return the whole; raise `IncompleteError` if its end has not come."""
        if self._head is None or not self._is_whole:
            raise IncompleteError("the end is missing")
        return Snapshot(
            version=self._head.version,
            trunks={trunk.id: trunk for trunk in self._head.trunks},
            numbers=self._numbers,
            limits=self._head.limits,
            default_limits=self._head.default_limits,
        )


def encode(snapshot: Snapshot) -> bytes:
    """Return all lines in one piece: for small ones."""
    return b"".join(lines(snapshot))


def decode(data: bytes) -> Snapshot:
    """Return the snapshot in `data`, all of its lines; raise what `Reader` raises."""
    reader = Reader()
    for text in data.splitlines():
        reader.take(text)
    return reader.snapshot()
