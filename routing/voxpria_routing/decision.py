"""What a decision is made of and what it comes to: the INVITE's facts; dial, or reject with the cause and its words."""

from enum import StrEnum

import msgspec

from voxpria_routing.digest import Digest
from voxpria_routing.media import Offered
from voxpria_routing.snapshot import Number, Trunk

METHOD = "INVITE"


class Cause(StrEnum):
    """Why the edge refused an INVITE."""

    INVALID_NUMBER = "invalid_number"
    NUMBER_NOT_FOUND = "number_not_found"
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    CREDENTIALS_NEEDED = "credentials_needed"
    CREDENTIALS_REFUSED = "credentials_refused"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    NUMBER_INACTIVE = "number_inactive"
    NO_ROUTE = "no_route"
    TOO_MANY_CALLS = "too_many_calls"
    CALLS_TOO_FAST = "calls_too_fast"
    TARGETS_DOWN = "targets_down"
    NO_SNAPSHOT = "no_snapshot"
    OUT_OF_SERVICE = "out_of_service"
    MEDIA_NOT_ACCEPTABLE = "media_not_acceptable"
    MALFORMED = "malformed"
    MESSAGE_TOO_LARGE = "message_too_large"
    TOO_MANY_HOPS = "too_many_hops"
    LOOP = "loop"
    NO_SUCH_CALL = "no_such_call"
    SCHEME_NOT_SUPPORTED = "scheme_not_supported"
    EXTENSION_NOT_SUPPORTED = "extension_not_supported"


SIP_ANSWER: dict[Cause, tuple[int, str]] = {
    Cause.INVALID_NUMBER: (404, "Not Found"),
    Cause.NUMBER_NOT_FOUND: (404, "Not Found"),
    Cause.SOURCE_NOT_ALLOWED: (403, "Forbidden"),
    Cause.CREDENTIALS_NEEDED: (401, "Unauthorized"),
    Cause.CREDENTIALS_REFUSED: (403, "Forbidden"),
    Cause.CALLER_NOT_ALLOWED: (403, "Forbidden"),
    Cause.NUMBER_INACTIVE: (480, "Temporarily Unavailable"),
    Cause.NO_ROUTE: (480, "Temporarily Unavailable"),
    Cause.TOO_MANY_CALLS: (486, "Busy Here"),
    Cause.CALLS_TOO_FAST: (503, "Service Unavailable"),
    Cause.TARGETS_DOWN: (503, "Service Unavailable"),
    Cause.NO_SNAPSHOT: (503, "Service Unavailable"),
    Cause.OUT_OF_SERVICE: (503, "Service Unavailable"),
    Cause.MEDIA_NOT_ACCEPTABLE: (488, "Not Acceptable Here"),
    Cause.MALFORMED: (400, "Bad Request"),
    Cause.MESSAGE_TOO_LARGE: (513, "Message Too Large"),
    Cause.TOO_MANY_HOPS: (483, "Too Many Hops"),
    Cause.LOOP: (482, "Loop Detected"),
    Cause.NO_SUCH_CALL: (481, "Call/Transaction Does Not Exist"),
    Cause.SCHEME_NOT_SUPPORTED: (416, "Unsupported URI Scheme"),
    Cause.EXTENSION_NOT_SUPPORTED: (420, "Bad Extension"),
}
"""The response (RFC 3261 section 21) that tells the carrier of each cause."""


class Invite(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an INVITE before anything is decided. All of it is the sender's word, but the source."""

    request_user: str
    """User part of the request URI, as sent."""
    from_user: str
    source_address: str
    """IP address that the request came from."""
    to_user: str = ""
    """User part of To: the dialled number, where the request URI names our registration."""
    trunk_hint: str | None = None
    """The request URI's `voxpria-trunk` parameter: which trunk is meant, where several fit. Gives no right."""
    digest: Digest | None = None
    """Its answer to a challenge of ours, if it brings one."""
    offered: Offered | None = None
    """The media in its session description; None for an INVITE without one."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with an INVITE that was refused before anything could be decided on it, in plain words."""

    cause: Cause
    summary: str
    mend: str
    tried: tuple[str, ...] = ()
    """What else stands in it that tells why."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision, for a person to read."""

    summary: str
    tried: tuple[str, ...] = ()
    """What was looked at, in order."""
    nearest: str | None = None
    """What came closest to fitting."""
    mend: str | None = None
    """What to do about it."""


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """Send the call to the first of `targets` that takes it."""

    number: Number
    carrier: Trunk
    """The trunk that the call came in through."""
    targets: tuple[Trunk, ...]
    caller: str
    called: str
    """The number that is dialled: `number` itself, unless the call goes out through a carrier."""
    is_outbound: bool = False
    offered: Offered | None = None
    is_caller_ipv6: bool = False
    """Which family a caller is met in that has offered nothing yet."""
    explanation: Explanation
    proven_by: Digest | None = None
    """The digest answer that let the call in, if it was not its address."""

    @property
    def target(self) -> Trunk:
        """The trunk that is tried first."""
        return self.targets[0]


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """Refuse the call. `number` and `carrier` are set as far as they are known; without a carrier, nobody's."""

    cause: Cause
    explanation: Explanation
    called: str
    caller: str
    number: Number | None = None
    carrier: Trunk | None = None
    is_outbound: bool = False
    is_stranger: bool = False
    """True for a source that no trunk knows: its answer is the same whatever was dialled."""
    is_stale: bool = False
    """True where the right password came with a nonce that is too old, or used (RFC 7616 section 3.3)."""
    retry_after_seconds: int | None = None
    proven_by: Digest | None = None

    @property
    def sip_answer(self) -> tuple[int, str]:
        """SIP code and reason phrase."""
        return SIP_ANSWER[self.cause]


Decision = Dial | Reject
