"""What an edge reports of a call. Events are facts with a time; delivered at least once, in order.

`id` is the same each time an event is delivered, so the receiver keeps the first and drops the rest.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from voxpria_routing.decision import Cause, Explanation
from voxpria_routing.snapshot import Mode

UtcTime = Annotated[datetime, msgspec.Meta(tz=True)]
"""A timezone-aware time; a naive one is refused when decoded."""

Side = Literal["caller", "agent", "edge", "api"]
"""Who did it: the caller (the other side of an agent), the agent's side, the edge itself, or who asked the API."""

EndCause = Literal[
    "hangup",  # one side sent BYE
    "max_duration",  # the number's max_duration ran out
    "refused",  # the edge's own decision; never dialled
    "rejected",  # the called side answered with a final error
    "no_answer",  # nobody answered in time
    "canceled",  # the caller gave up while it rang
    "unreachable",  # no answer at all from the called side: transport, DNS, TLS, time-out
    "media_timeout",  # no packet from either side for longer than the media time-out
    "session_expired",  # nobody refreshed the session in the time that both sides had agreed on (RFC 4028)
    "insecure_media",  # a side whose trunk requires SRTP described other media, and was cut off
    "unreadable_media",  # a side's session description can't be read, so that its media can't be relayed
    "not_placed",  # no edge took the call that the API asked for
    "lost",  # the edge lost the call's state; the end is the time at which that was seen
]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every event carries. `at` is UTC and timezone-aware."""

    id: str
    call_id: str
    at: UtcTime


class Invited(Event, frozen=True, kw_only=True, tag="invited"):
    """An INVITE came, and the edge decided: `refusal` is None when it dialled on."""

    account_id: str
    mode: Mode
    direction: Literal["inbound", "outbound"] = "inbound"
    from_: str = msgspec.field(name="from")
    to: str
    number_id: str | None
    trunk_id: str | None
    agent_id: str | None
    edge_id: str
    sip_call_id: str
    source: str
    """`ip:port` the INVITE came from."""
    transport: str
    max_duration_seconds: int | None = None
    refusal: Cause | None = None
    explanation: Explanation


class Queued(Event, frozen=True, kw_only=True, tag="queued"):
    """A call was asked for through the API, and waits for an edge: the control plane's own event."""

    account_id: str
    mode: Mode
    from_: str = msgspec.field(name="from")
    to: str
    number_id: str
    trunk_id: str | None
    agent_id: str | None
    max_duration_seconds: int | None = None
    variables: dict[str, str] = {}
    metadata: dict[str, str | int | float | bool | None] = {}
    explanation: Explanation


class Attempted(Event, frozen=True, kw_only=True, tag="attempted"):
    """A trunk's server did not take the call, and the next one is tried."""

    trunk_id: str
    server: str
    """`host:port/transport`."""
    cause: EndCause
    sip_code: int
    sip_reason: str
    detail: str | None = None
    """Why, in one sentence, where the code does not say it."""


class Ringing(Event, frozen=True, kw_only=True, tag="ringing"):
    """The called side rings (180 or 183)."""


class Answered(Event, frozen=True, kw_only=True, tag="answered"):
    """The called side answered (200)."""

    recording: bool
    """True when the call is being recorded and a `Recorded` or `RecordingFailed` will follow."""
    trunk_id: str | None = None
    """The trunk whose server answered."""


class Ended(Event, frozen=True, kw_only=True, tag="ended"):
    """The call is over, however it ended. One a call."""

    cause: EndCause
    by: Side
    sip_code: int
    """Final code of the INVITE: 200 for an answered call."""
    sip_reason: str
    detail: str | None = None
    """Why, in one sentence, where the code does not say it."""


class Direction(msgspec.Struct, frozen=True, kw_only=True):
    """Quality of the audio that one side sent, as it arrived at the edge."""

    packets: int
    lost: int
    loss_percent: float
    jitter_ms: float
    """Interarrival jitter, RFC 3550 section 6.4.1, mean over the call."""
    mos: float
    """Estimated mean opinion score, 1 to 4.5, by the E-model (ITU-T G.107)."""
    codec: str


Issue = Literal[
    "no_audio",  # nobody sent a packet of audio
    "one_way_audio",  # one side sent audio, the other not one packet
    "caller_silent",  # the caller's packets held silence alone
    "agent_silent",
    "caller_audio_late",  # the first packet came seconds after the answer
    "agent_audio_late",
]
"""What was wrong with a call's audio."""


class Measured(Event, frozen=True, kw_only=True, tag="measured"):
    """Quality of an answered call, measured after its end. A side that sent nothing is None."""

    source: Literal["packets", "rtcp"]
    caller: Direction | None
    agent: Direction | None
    caller_first_audio_at: UtcTime | None = None
    """When the caller's first packet of audio arrived; None if none did, or if it was not captured."""
    agent_first_audio_at: UtcTime | None = None
    issues: tuple[Issue, ...] = ()


class Timed(Event, frozen=True, kw_only=True, tag="timed"):
    """Where the time of a dialled call's set-up went, read from its SIP messages after its end.

    Milliseconds; a part whose end was not seen is None.
    """

    post_dial_delay_ms: float | None
    """The caller's INVITE until it heard ringing, early media or a final answer."""
    edge_ms: float | None
    """The caller's INVITE until ours: what the edge itself took."""
    agent_ringing_ms: float | None
    """Our INVITE until the called side rang, the agent's of an inbound call; its challenge included."""
    agent_answer_ms: float | None
    """Our INVITE until the called side answered."""
    carrier_ack_ms: float | None
    """The answer on its way to the carrier until its ACK: the carrier's round trip."""


class Recorded(Event, frozen=True, kw_only=True, tag="recorded"):
    """The recording was made and has been handed to the control plane."""

    duration_seconds: float
    size_bytes: int


class RecordingFailed(Event, frozen=True, kw_only=True, tag="recording_failed"):
    """There will be no recording, and why."""

    detail: str


class RecordingDeleted(Event, frozen=True, kw_only=True, tag="recording_deleted"):
    """The recording is no longer kept: the control plane's own event, when its time was over."""


CallEvent = (
    Invited
    | Queued
    | Attempted
    | Ringing
    | Answered
    | Ended
    | Measured
    | Timed
    | Recorded
    | RecordingFailed
    | RecordingDeleted
)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one edge, oldest first."""

    edge_id: str
    events: tuple[CallEvent, ...]


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the control plane will never take, and why."""

    id: str
    error: str


class BatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a batch: every event not named here is kept, and need not be sent again."""

    rejected: tuple[Rejected, ...] = ()
