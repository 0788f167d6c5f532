"""Bodies of the control plane's edge API (`/edge/v1`), besides the snapshot and the events themselves.

Every request carries `Authorization: Bearer <edge token>` and names its edge.

- `GET /edge/v1/snapshot?edge_id=…&after=VERSION&wait_seconds=N` answers with the lines of a snapshot
  (`voxpria_routing.snapshot`) as soon as there is one later than `after`, or with 304 after `wait_seconds` (at most
  25). `after` is the version that the edge has in force, so the question is also the acknowledgement.
- `GET /edge/v1/changes?edge_id=…&after=VERSION&wait_seconds=N` answers the same with a `Delta` that begins at `after`;
  with 410 where none does, and the edge asks for the snapshot.
- `POST /edge/v1/events` takes a `Batch`, answers with a `BatchResult`.
- `POST /edge/v1/status` takes a `Status`, answers 204.
- `POST /edge/v1/trunks` takes `TrunkNews`, answers 204.
- `POST /edge/v1/strangers` takes `Strangers`, answers 204.
- `POST /edge/v1/open-calls` takes `OpenCalls`, answers 204.
- `POST /edge/v1/commands` takes `CommandsWanted`, answers with `Commands` as soon as there is one that is not `known`,
  or with none after `wait_seconds` (at most 25). A command may come more than once, and to be done twice is no harm.
- `POST /edge/v1/calls/{call_id}/take?edge_id=…` takes a call that is to be placed: 204 if it is this edge's, also when
  asked again; 409 if it is another's, or over.
- `PUT /edge/v1/calls/{call_id}/trace?edge_id=…` takes a gzipped `Trace`, answers 204; a later one replaces it.
- `PUT /edge/v1/calls/{call_id}/recording?edge_id=…` takes the mp3 as body, answers 204; again is no error.
"""

from typing import Annotated, Literal

import msgspec

from voxpria_routing.decision import Cause
from voxpria_routing.events import UtcTime
from voxpria_routing.snapshot import Mode, Transport

Sentence = Annotated[str, msgspec.Meta(max_length=2000)]

MOST_KNOWN = 1000
MOST_REFUSED = 200
OTHERS = "others"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How one process of the edge is doing."""

    is_up: bool
    detail: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Sent every few seconds, and at once when a part goes or comes back."""

    edge_id: str
    applied_version: int
    parts: dict[str, Part]
    """By name: `kamailio`, `rtpengine`."""
    open_calls: int
    unsent_events: int


class TrunkReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an edge found a trunk's server, at the address that it had in the edge's routes."""

    trunk_id: str
    server: str
    port: int
    transport: Transport
    status: Literal["reachable", "unreachable", "auth_failed"]
    detail: Sentence
    latency_ms: float | None
    """From the question to its first answer."""
    checked_at: UtcTime


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """How an edge's registration with a trunk's server stands."""

    status: Literal["pending", "registered", "failed"]
    checked_at: UtcTime
    expires_at: UtcTime | None = None
    """Until when the server sends calls, unless it is refreshed; may still be in the future when a refresh failed."""
    sip_code: int | None = None
    """The server's last answer; None if there was none."""
    detail: Sentence | None = None
    """Why it failed, as a sentence, and how to mend that."""
    mend: Sentence | None = None


class TrunkNews(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge has to tell of trunks."""

    edge_id: str
    reports: Annotated[tuple[TrunkReport, ...], msgspec.Meta(max_length=1000)] = ()
    registrations: dict[str, Registration | None] = {}
    """By trunk id; None is that there is none any more."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Calls from one address, refused for one cause, that belong to no account: how many, and the last of them."""

    source: Annotated[str, msgspec.Meta(max_length=64)]
    """The address, without its port; `others` for what came from too many to be told apart."""
    cause: Cause
    count: Annotated[int, msgspec.Meta(ge=1, le=2**40)]
    first_at: UtcTime
    last_at: UtcTime
    transport: Annotated[str, msgspec.Meta(max_length=16)]
    called: Annotated[str, msgspec.Meta(max_length=64)]
    why: Sentence
    nearest: Sentence | None = None
    mend: Sentence | None = None

    def after(self, before: "Refused | None") -> "Refused":
        """Return the sum of these and of those before, of the same source and cause."""
        if before is None:
            return self
        return msgspec.structs.replace(self, count=before.count + self.count, first_at=before.first_at)


class Strangers(msgspec.Struct, frozen=True, kw_only=True):
    """Refused calls that belong to no account, since an edge last told of such."""

    edge_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    refused: Annotated[tuple[Refused, ...], msgspec.Meta(max_length=MOST_REFUSED)]


class OpenCalls(msgspec.Struct, frozen=True, kw_only=True):
    """The calls that the edge still knows as open, sent after all older events.

    The control plane ends every other call of this edge that was opened before `as_of`.
    """

    edge_id: str
    as_of: UtcTime
    call_ids: tuple[str, ...]


class CommandsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """An edge asks what it is to do."""

    edge_id: str
    known: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_KNOWN)] = ()
    """Ids of commands that it has."""
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=25)] = 0


class HangUp(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="hang_up"):
    """End a call at both sides. One that is over already is no error."""

    id: str
    call_id: str


class Place(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="place"):
    """Place a call from one of our numbers, and connect who answers with the number's agent.

    Any edge may; the one that the control plane lets *take* it does (`POST /edge/v1/calls/{call_id}/take`).
    """

    id: str
    call_id: str
    account_id: str
    mode: Mode
    number_id: str
    from_: str = msgspec.field(name="from")
    to: str
    agent_id: str | None = None
    variables: dict[str, str] = {}
    expires_at: UtcTime
    """Not to be taken after that."""


Command = HangUp | Place


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge is to do."""

    commands: tuple[Command, ...] = ()
