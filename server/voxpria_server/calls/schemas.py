"""Bodies of this slice's answers, and the dates of its filters."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from voxpria_routing.events import Queued
from voxpria_routing.trace import Message, Trace

from voxpria_server.calls.links import RecordingLinks
from voxpria_server.calls.state import Status
from voxpria_server.kit.clock import iso, utc_now
from voxpria_server.routing.schemas import Explanation

_SAME = ("id", "phone_number", "direction", "agent_id", "status", "sip_code", "sip_reason", "end_cause", "ended_by")
_EVENT_FIELDS = {
    "queued": ("from", "to"),
    "invited": ("from", "to", "source", "transport", "sip_call_id", "refusal"),
    "attempted": ("trunk_id", "server", "cause", "sip_code", "sip_reason", "detail"),
    "answered": ("recording", "trunk_id"),
    "ended": ("cause", "by", "sip_code", "sip_reason", "detail"),
    "measured": ("source",),
    "timed": ("post_dial_delay_ms", "edge_ms", "agent_ringing_ms", "agent_answer_ms", "carrier_ack_ms"),
    "recorded": ("duration_seconds", "size_bytes"),
    "recording_failed": ("detail",),
}


class CallListed(BaseModel):
    """A call, as lists show it."""

    id: str
    phone_number: str
    direction: Literal["inbound", "outbound"]
    from_: str = Field(alias="from")
    to: str
    agent_id: str | None
    status: Annotated[Status, Field(examples=["completed"])]
    duration: int = Field(description="Whole seconds from answer to end.")
    started_at: str
    answered_at: str | None
    ended_at: str | None
    recording_url: str | None = Field(description="A link that works without a key, for a while.")
    transcript_available: bool
    max_duration: int = Field(description="Seconds after which the call is ended.")
    sip_code: int | None = Field(description="Final SIP code of the call's INVITE.")
    sip_reason: str | None
    end_cause: str | None
    ended_by: Literal["caller", "agent", "edge", "api"] | None
    explanation: Explanation


class Side(BaseModel):
    """The audio that one side sent, as it arrived at the edge."""

    packets: int
    lost: int
    loss_percent: float
    jitter_ms: float
    mos: float
    codec: str


class Quality(BaseModel):
    """What was measured of a call."""

    mos: float = Field(description="That of the worse side.")
    source: Literal["packets", "rtcp"]
    caller: Side | None
    agent: Side | None


class Metadata(BaseModel):
    """What was found out about a call, beside the `metadata` that it was placed with."""

    model_config = ConfigDict(extra="allow")

    caller_location: str | None
    call_quality: Literal["excellent", "good", "fair", "poor"] | None


class Timings(BaseModel):
    """Where the time of a call's set-up went, in milliseconds; what was not seen is null."""

    post_dial_delay_ms: float | None = Field(description="The INVITE until the carrier heard ringing or an answer.")
    edge_ms: float | None = Field(description="What the edge took, from the carrier's INVITE to its own.")
    agent_ringing_ms: float | None = Field(description="The edge's INVITE until the agent's side rang.")
    agent_answer_ms: float | None = Field(description="The edge's INVITE until the agent's side answered.")
    carrier_ack_ms: float | None = Field(description="The answer until the carrier's ACK: the carrier's round trip.")
    caller_first_audio_ms: float | None = Field(description="The answer until the caller's first audio.")
    agent_first_audio_ms: float | None = Field(description="The answer until the agent's first audio.")


class Segment(BaseModel):
    """One thing that was said."""

    speaker: Literal["agent", "caller"]
    text: str
    timestamp: str = Field(description="When, by the clock.")


class Transcript(BaseModel):
    """What was said in a call, in order."""

    segments: list[Segment]


class CallFull(CallListed):
    """A call with all that is known of it."""

    agent_name: str | None
    transcript: Transcript | None
    metadata: Metadata
    quality: Quality | None
    timings: Timings | None
    issues: list[str] = Field(
        description="What was wrong with the audio: `no_audio`, `one_way_audio`, `caller_silent`, `agent_silent`,"
        " `caller_audio_late`, `agent_audio_late`."
    )
    events: list[dict[str, Any]] = Field(description="What happened, in order; `offset_ms` counts from the INVITE.")


class TracedMessage(BaseModel):
    """A SIP message, as it stood on the wire but for its secrets."""

    at: str
    offset_ms: float = Field(description="Since the call's INVITE.")
    leg: Literal["carrier", "agent"] = Field(description="With whom it was exchanged.")
    direction: Literal["received", "sent"] = Field(description="Seen from the edge.")
    source: str
    destination: str
    transport: Literal["udp", "tcp", "tls"]
    summary: str = Field(description="The message's first line.")
    text: str


Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
_RESERVED = {"caller_location", "call_quality"}


def _not_ours(metadata: dict[str, Any]) -> dict[str, Any]:
    if taken := sorted(_RESERVED & metadata.keys()):
        raise ValueError(f"{taken[0]} is a field of ours")
    return metadata


def _plainly(value: Any, check: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401  (whatever came)
    """Say what a value may be, not which of its kinds it is not."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError("a text of at most 500 characters, a number, true, false or null") from None


Value = Annotated[
    Annotated[str, Field(max_length=500)] | int | float | bool | None,
    WrapValidator(_plainly),
]


class PlaceCall(BaseModel):
    """Body of POST /calls."""

    model_config = ConfigDict(extra="forbid", strict=True)

    from_: str = Field(
        alias="from",
        min_length=1,
        max_length=64,
        description="One of your numbers, or its id.",
        examples=["+15555551234"],
    )
    to: str = Field(max_length=64, description="Whom to call, as +12125551234.")
    agent_id: str | None = Field(
        None, min_length=1, max_length=64, description="Who talks; the number's own agent if left out."
    )
    variables: Annotated[
        dict[Name, Annotated[str, Field(max_length=256)]],
        Field(
            max_length=16,
            description="Told to the agent's server, each as header `X-VoxPria-Var-NAME`.",
            examples=[{"name": "Ada"}],
        ),
    ] = {}
    metadata: Annotated[
        dict[Name, Value],
        Field(max_length=32, description="Kept with the call, and shown with it.", examples=[{"order": "42"}]),
        AfterValidator(_not_ours),
    ] = {}


class CallPlaced(BaseModel):
    """A call that waits for an edge."""

    id: str
    phone_number: str
    direction: Literal["outbound"]
    from_: str = Field(alias="from")
    to: str
    agent_id: str | None
    status: Literal["queued"]
    started_at: str = Field(description="When it was asked for.")
    expires_at: str = Field(description="What is not placed by then fails.")
    variables: Annotated[dict[str, str], Field(examples=[{"name": "Ada"}])]
    metadata: Annotated[dict[str, Any], Field(examples=[{"order": "42"}])]


def placed(queued: Queued, expires_at: datetime) -> CallPlaced:
    """Return a call as it has just been queued."""
    return CallPlaced.model_validate(
        {
            "id": queued.call_id,
            "phone_number": queued.from_,
            "direction": "outbound",
            "from": queued.from_,
            "to": queued.to,
            "agent_id": queued.agent_id,
            "status": "queued",
            "started_at": iso(queued.at),
            "expires_at": iso(expires_at),
            "variables": queued.variables,
            "metadata": queued.metadata,
        }
    )


class HungUp(BaseModel):
    """What came of hanging up."""

    success: bool = Field(description="True once the call has ended at both sides.")
    id: str
    status: Annotated[Status, Field(examples=["completed"])]
    ended_at: str | None
    ended_by: Annotated[Literal["api"] | None, Field(examples=["api"])]


def hung_up(row: Any) -> HungUp:  # noqa: ANN401  (a row)
    """Return what came of hanging up."""
    return HungUp(
        success=row.ended_at is not None,
        id=row.id,
        status=row.status,
        ended_at=iso(row.ended_at) if row.ended_at else None,
        ended_by=row.ended_by,
    )


class CallTrace(BaseModel):
    """The SIP messages of a call, oldest first, and why it was routed as it was."""

    call_id: str
    started_at: str
    decision: Explanation
    timings: Timings | None
    is_truncated: bool = Field(description="True if the call had more messages than are kept of one.")
    messages: list[TracedMessage] = Field(description="Empty while the edge has sent none, and when no longer kept.")


def listed(links: RecordingLinks, row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the call of a row as `CallListed` has it, for msgspec to encode: a hot list has no time for models."""
    return {**_fields(links, row, now), "explanation": msgspec.Raw(row["explanation"].encode())}


def full(links: RecordingLinks, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the call of a row as `CallFull` has it, for msgspec to encode."""
    told = [msgspec.json.decode(event) for event in row["events"]]
    quality = None if row["quality"] is None else msgspec.json.decode(row["quality"])
    segments = None if row["segments"] is None else {"segments": msgspec.Raw(row["segments"].encode())}
    label = quality.pop("label") if quality else None
    return {
        **listed(links, row, utc_now()),
        "agent_name": row["agent_name"],
        "transcript": segments,
        "metadata": {
            **_of_kind(told, "queued").get("metadata", {}),
            "caller_location": row["caller_location"],
            "call_quality": label,
        },
        "quality": _dumped(Quality(**quality) if quality else None),
        "timings": _dumped(_timings(row["answered_at"], told)),
        "issues": list(_of_kind(told, "measured").get("issues", ())),
        "events": _timeline(row["started_at"], told),
    }


def _dumped(model: BaseModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump()


def trace(row: Mapping[str, Any], kept: Trace | None) -> "CallTrace":
    """Return what is kept of a call's SIP messages."""
    return CallTrace(
        call_id=row["id"],
        started_at=iso(row["started_at"]),
        decision=msgspec.json.decode(row["explanation"]),
        timings=_timings(row["answered_at"], map(msgspec.json.decode, row["events"])),
        is_truncated=kept.is_truncated if kept else False,
        messages=[_message(row["started_at"], message) for message in kept.messages] if kept else [],
    )


def _message(started_at: datetime, message: Message) -> "TracedMessage":
    return TracedMessage(
        at=message.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        offset_ms=round(1000 * (message.at - started_at).total_seconds(), 3),
        leg=message.leg,
        direction="received" if message.is_received else "sent",
        source=message.source,
        destination=message.destination,
        transport=message.transport,
        summary=message.text.partition("\r\n")[0],
        text=message.text,
    )


def _timings(answered_at: datetime | None, told: Iterable[dict[str, Any]]) -> Timings | None:
    """Return where the time went; None while none of it is known."""
    told = list(told)
    timed, measured = _of_kind(told, "timed"), _of_kind(told, "measured")
    if not timed and not measured:
        return None
    parts = {name: timed.get(name) for name in _EVENT_FIELDS["timed"]}
    for side in ("caller", "agent"):
        first = measured.get(f"{side}_first_audio_at")
        parts[f"{side}_first_audio_ms"] = (
            round(1000 * (datetime.fromisoformat(first) - answered_at).total_seconds(), 1)
            if first and answered_at
            else None
        )
    return Timings(**parts)


def _of_kind(told: Iterable[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next((event for event in told if event["kind"] == kind), {})


def _fields(links: RecordingLinks, row: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    return {
        **{name: row[name] for name in _SAME},
        "from": row["from_number"],
        "to": row["to_number"],
        "duration": row["duration_seconds"],
        "started_at": _second(row["started_at"]),
        "answered_at": _second(row["answered_at"]),
        "ended_at": _second(row["ended_at"]),
        "recording_url": links.of(row["id"], status=row["status"], recording=row["recording"], now=now),
        "transcript_available": row["has_transcript"],
        "max_duration": row["max_duration_seconds"],
    }


def _second(moment: datetime | None) -> datetime | None:
    """Return a time in UTC, cut to the second, which msgspec writes as `iso` does."""
    return None if moment is None else moment.replace(microsecond=0)


def _timeline(started_at: datetime, told: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = [(datetime.fromisoformat(event["at"]), event) for event in told]
    return [_shown(started_at, at, event) for at, event in sorted(timed, key=lambda pair: pair[0])]


def _shown(started_at: datetime, at: datetime, event: dict[str, Any]) -> dict[str, Any]:
    fields = {name: event[name] for name in _EVENT_FIELDS.get(event["kind"], ()) if event.get(name) is not None}
    offset_ms = round((at - started_at).total_seconds() * 1000)
    return {"type": event["kind"], "at": iso(at), "offset_ms": offset_ms, **fields}
