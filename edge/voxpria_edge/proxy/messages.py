"""What Kamailio says to the agent and is told by it: netstrings of JSON over evapi, the script's routes/tell.cfg."""

import base64
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from voxpria_edge.kit.ids import call_of_record, record_id

LONGEST_MESSAGE_BYTES = 60_000

Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
"""A UUID."""
At = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,11}(\.[0-9]{1,9})?$")]
"""Seconds since 1970, with microseconds."""


class Invite(msgspec.Struct, frozen=True, tag_field="kind", tag="invite"):
    """A question: may this call in? Fields of the sender's making are in base64."""

    id: Id
    at: At
    index: int
    label: int
    source: str
    port: int
    transport: str
    call_id: str
    from_tag: str
    request_uri: str
    from_uri: str
    to_uri: str = ""
    authorization: str = ""
    cseq: int = 0
    branch: str = ""
    """Of its topmost Via."""
    spare_bytes: int = 65536
    """By how much the answer may be longer than what it repeats of the request, without being the longer of both."""
    contact: str = ""
    record_route: str = ""
    sdp: str = ""
    """Its session description; not there when the question is only remembered (a resend)."""
    session: int = 0
    """-1: its session description can't be read, by Kamailio or by rtpengine."""

    @property
    def asked(self) -> str:
        """Return the name of its transaction, as `Ended.asked` has it."""
        return f"{self.index}:{self.label}"


class Broken(msgspec.Struct, frozen=True, tag_field="kind", tag="broken"):
    """An INVITE that Kamailio has refused by itself; see `voxpria_edge.desk.broken`."""

    id: Id
    at: At
    fault: str
    """Its word for what is wrong."""
    bytes: int
    """How long the message is."""
    source: str
    port: int
    transport: str
    head: str
    """How it begins, in base64."""
    is_kept: int
    """1: from an address that a trunk allows; said again until it is acknowledged."""


class Tried(msgspec.Struct, frozen=True, tag_field="kind", tag="tried"):
    """A question: what now, as the trunk's server did not take the call."""

    id: Id
    at: At
    index: int
    label: int
    record: str
    cause: str
    code: int
    reason: str
    note: str = ""
    """What its answer says in Warning or Reason."""


class Challenged(msgspec.Struct, frozen=True, tag_field="kind", tag="challenged"):
    """A question, which is not kept: how to answer the challenge of a trunk's server to a request."""

    index: int
    label: int
    record: str
    trunk: str
    """The id of the trunk that was dialled, as `Dial` or `Allow` named it: no run of ours need remember it."""
    method: str
    request_uri: str
    code: int
    head: str


class Progress(msgspec.Struct, frozen=True, tag_field="kind", tag="ringing"):
    """The called side rings."""

    id: Id
    at: At
    record: str


class Answered(msgspec.Struct, frozen=True, tag_field="kind", tag="answered", rename={"from_": "from"}):
    """The called side answered. The headers are those of its answer, in base64."""

    id: Id
    at: At
    record: str
    expires: int = 0
    """How many seconds the session lasts that nobody refreshes (RFC 4028); 0 is as long as it will."""
    from_: str = ""
    to: str = ""
    call_id: str = ""
    contact: str = ""
    record_route: str = ""


class Moved(msgspec.Struct, frozen=True, tag_field="kind", tag="moved"):
    """Both sides have said anew where they are (RFC 3261 section 12.2): their Contact headers, in base64."""

    id: Id
    at: At
    record: str
    caller: str
    agent: str
    expires: int = 0
    """As in `Answered`: this was a refresh as well."""


class Ended(msgspec.Struct, frozen=True, tag_field="kind", tag="ended"):
    """The call is over."""

    id: Id
    at: At
    record: str
    asked: str
    cause: str
    by: Literal["caller", "agent", "edge"]
    code: int
    reason: str
    note: str = ""
    """What a BYE says in its Reason header (RFC 3326)."""


class OfDialog(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A message within a call, with what it takes to speak to its sender. The headers are in base64."""

    id: Id
    at: At
    record: str
    index: int
    label: int
    code: int
    """The status of its answer; 0 for a request."""
    from_: str
    to: str
    call_id: str
    cseq: int
    contact: str
    record_route: str
    source: str
    port: int
    transport: str


class Unfit(OfDialog, frozen=True, kw_only=True, tag_field="kind", tag="unfit"):
    """A side answered with media that can't stand."""

    cause: Literal["insecure_media", "unreadable_media"]
    """It must speak SRTP and described other media; or what it described can't be read."""


class Stray(OfDialog, frozen=True, tag_field="kind", tag="stray"):
    """A 2xx to an INVITE that nobody waits for any more; it is not kept, as it is repeated until it is acknowledged."""


class TakenBack(msgspec.Struct, frozen=True, tag_field="kind", tag="taken_back"):
    """An offer within a call was refused; not kept. What the two had agreed to before, all in base64."""

    record: str
    from_tag: str
    """Of whose offer was refused."""
    to_tag: str
    offer: str
    """What that side said of its media last."""
    answer: str
    flags: str
    """rtpengine's, as Kamailio's module writes them."""
    answer_flags: str


class ByeChallenged(msgspec.Struct, frozen=True, tag_field="kind", tag="bye_challenged"):
    """A side wants credentials for a BYE of the edge's own; not kept. Its tags, and the answer's headers, in base64."""

    from_tag: str
    to_tag: str
    code: int
    head: str


class Replied(msgspec.Struct, frozen=True, tag_field="kind", tag="replied"):
    """What became of a request of ours."""

    id: Id
    sent_at: At
    at: At
    code: int
    """0: nothing could be sent. 408 without a head: nothing came."""
    head: str = ""
    """The answer as it stood on the wire."""


class Live(msgspec.Struct, frozen=True, tag_field="kind", tag="live"):
    """Kamailio knows this call; said once a resend."""

    record: str


class Resent(msgspec.Struct, frozen=True, tag_field="kind", tag="resent"):
    """That was all that had not been acknowledged."""


Told = Invite | Broken | Tried | Progress | Answered | Moved | Ended | Unfit | Stray
Message = Told | TakenBack | Challenged | ByeChallenged | Replied | Live | Resent


def decode(data: bytes) -> Message:
    """Return the message in `data`; raise msgspec.DecodeError for anything else."""
    message: Message = msgspec.json.decode(data, type=Message)
    return message


def text(field: str) -> str:
    """Return what stands in a base64 field; bytes that are no UTF-8 are shown escaped, and so is NUL.

    A missing one is empty. PostgreSQL keeps no NUL: a call's record would be lost for one in its Call-ID.
    """
    return data(field).decode(errors="backslashreplace").replace("\0", "\\x00")


def data(field: str) -> bytes:
    """Return the bytes in a base64 field; a missing one is empty."""
    try:
        return base64.b64decode(field, validate=True)
    except ValueError:
        return b""


def base64_of(data: bytes) -> str:
    """Return bytes as a field of the sender's making comes."""
    return base64.b64encode(data).decode()


def call_of(message: "Message") -> str | None:
    """Return the id of the record of the call that a message is about."""
    match message:
        case Invite(id=id_, at=at) | Broken(id=id_, at=at):
            return record_id(id_, time(at))
        case Resent() | Replied() | ByeChallenged():
            return None
        case _:
            return call_of_record(text(message.record)) or None


def time(at: str) -> datetime:
    """Return the time of a message."""
    return datetime.fromtimestamp(float(at), UTC)


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """Let the call in, and send it on."""

    index: int
    label: int
    record: str
    trunk: str
    """Whose server is dialled, by its id; empty for our own middle."""
    request_uri: str
    next_hop: str
    from_uri: str
    to_uri: str
    """What stands in From and To instead of what the caller wrote; nothing leaves them."""
    headers: str
    to_agent: str
    to_agent_again: str
    to_caller: str
    answer: str
    """rtpengine's flags, see `negotiation.Media`."""
    is_caller_secure: int
    is_agent_secure: int
    """1: that side's media must be SRTP."""
    ring_ms: int
    max_duration: int
    is_guarded: int
    """1: only to an address outside, see `resolve.PRIVATE`."""
    verdict: Literal["dial"] = "dial"


class Authorize(msgspec.Struct, frozen=True, kw_only=True):
    """Send the request again, with this header; without one, give its server up, or the request within a call."""

    index: int
    label: int
    header: str
    cause: str
    """Without a header: why there is none, as `Tried.cause` is to be."""
    verdict: Literal["authorize"] = "authorize"


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse the call, or give it up."""

    index: int
    label: int
    code: int
    reason: str
    headers: str = ""
    """Whole header lines of the answer."""
    is_once: int = 0
    """1: answer once, and don't repeat it; the sender may not be who it says."""
    verdict: Literal["reject"] = "reject"


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """Do not answer at all."""

    index: int
    label: int
    verdict: Literal["drop"] = "drop"


class Resend(msgspec.Struct, frozen=True, kw_only=True):
    """Say again all that has not been acknowledged."""

    verdict: Literal["resend"] = "resend"


class Allow(msgspec.Struct, frozen=True, kw_only=True):
    """Let a call's requests pass that was set up before Kamailio was restarted."""

    record: str
    trunk: str
    """Whose server is the called side, by its id; empty where that is our own middle."""
    places: str = ""
    """The hosts that its requests may go to, between spaces; empty where that is not known."""
    verdict: Literal["allow"] = "allow"


class AllAllowed(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of all other calls are of none that is up."""

    verdict: Literal["all_allowed"] = "all_allowed"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Send a request of our own to a trunk's server."""

    id: str
    method: Literal["OPTIONS", "REGISTER"]
    uri: str
    next_hop: str
    name: str
    """The name that its certificate must carry."""
    aor: str
    """Whose request it is: From and To."""
    headers: str
    """Whole header lines."""
    verdict: Literal["ask"] = "ask"


Command = Dial | Authorize | Reject | Drop | Resend | Allow | AllAllowed | Ask


def encode(command: Command) -> bytes:
    """Return the command as a netstring."""
    body = msgspec.json.encode(command)
    return b"%d:%s," % (len(body), body)
