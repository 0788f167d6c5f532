"""A call as the edge remembers it, and what each message of Kamailio's makes of it. Pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import get_args
from urllib.parse import quote, unquote

import msgspec
from voxpria_routing import events
from voxpria_routing.decide import Cause, Decision, Dial, Invite, Reject, next_hop_uri, request_uri, user_uri
from voxpria_routing.digest import Digest
from voxpria_routing.edge_api import Place
from voxpria_routing.load import account_key
from voxpria_routing.media import Offered, asked_of_caller
from voxpria_routing.snapshot import Mode, Trunk
from voxpria_sip.dialog import Dialog

from voxpria_edge import messages, negotiation, sdp
from voxpria_edge.ids import event_id, record_id
from voxpria_edge.resolve import Guard

_NUMBER = re.compile(r"\+?[0-9]{3,15}")

_OWN_WORDS: dict[str, tuple[events.EndCause, str]] = {
    "out_of_service": ("refused", "The edge's agent did not answer in time; it was not running or too busy."),
    "no_media": ("refused", "The edge's media relay did not answer."),
    "credentials": ("rejected", "The trunk's server refused the trunk's username and password."),
    "no_credentials": (
        "rejected",
        "The trunk's server wants a username and a password, and the trunk has none: set its credentials.",
    ),
    "unknown_digest": (
        "rejected",
        "The trunk's server wants a digest that is neither MD5 nor SHA-256: have it take one of these.",
    ),
    "forbidden": (
        "unreachable",
        (
            "The trunk's server is at a private, local or reserved address, which live calls may not go to;"
            " the operator may allow that with VOXPRIA_ALLOW_PRIVATE_TRUNKS."
        ),
    ),
    "unreachable": ("unreachable", "The trunk's server could not be reached, or did not answer at all."),
}
"""Kamailio's words for an end that need a sentence."""
_ANSWERS = {"rejected", "no_answer"}
_UNSATISFIED = {"credentials", "no_credentials", "unknown_digest"}
_NOBODY_THERE = {408, 480}
SipAnswer = tuple[int, str]
"""Status code and reason phrase."""
_OK = (200, "OK")
_UNAVAILABLE = (503, "Service Unavailable")
_INTERNAL_ERROR = (500, "Server Internal Error")
_RETRY_SECONDS = 5
_LONGEST_NOTE = 200
API_ANSWER = (603, "Decline")
"""What a caller hears whose call is ended through the API while it rings: nobody else is to be tried."""
INSECURE = (488, "Not Acceptable Here")
"""The answer to a caller whose call is not let through, as the called side's media is not encrypted."""
CARRIER_TAG, AGENT_TAG = "voxcarrier-", "voxagent-"
"""How our tags begin in the two halves of a call in whose middle we are, so that its messages can be told apart."""
_NO_MEDIA = "none"
"""Tells Kamailio that rtpengine is not its affair in this call."""
OWN_BYTES = 145
"""What an answer has beside what it repeats and `headers`: status line, tag, received, rport, Server, lengths."""


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """An announcement that was spoken in a call."""

    sound: str
    """The path of its WAV."""
    at: datetime
    seconds: float

    @property
    def is_over_at(self) -> datetime:
        """When its last word was out."""
        return self.at + timedelta(seconds=self.seconds)


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """The two dialogs of a call in whose middle we are, and what each side last said of its media."""

    tag: str = ""
    """Ours in the media session of a call that came in; the agent takes our place there. Else it is the call's."""
    callee: Dialog | None = None
    """With who is not the agent: it was called by us, or called in."""
    agent: Dialog | None = None
    callee_sdp: str = ""
    agent_sdp: str = ""
    is_callee_secure: bool = False
    is_agent_secure: bool = False
    """Whether that side's media must be SRTP."""
    flags: str = ""
    """rtpengine's, for offers towards the callee."""
    agent_flags: str = ""
    """For offers towards the agent."""
    answer_flags: str = ""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call from its INVITE until its recording is handed over."""

    id: str
    sip_call_id: str
    from_tag: str
    asked: str
    """Kamailio's transaction, as `index:label`."""
    cseq: int = 0
    """That of its INVITE."""
    opened_at: datetime
    max_duration_seconds: int
    is_captured: bool
    is_dialled: bool
    is_outbound: bool = False
    """True where the agent's side calls: whoever called first is then the agent."""
    bridge: Bridge | None = None
    """Of a call in whose middle we are: the two that we stand between."""
    unrecorded: str | None = None
    """Why it is not recorded, as a sentence, though its trunk would have it so."""
    spoken: Spoken | None = None
    """The announcement that was spoken before its recording began."""
    trunk_ids: tuple[str, ...] = ()
    """The trunks whose servers may be tried, in turn."""
    at_trunk: int = 0
    """Which of them is."""
    holds: tuple[str, ...] = ()
    """The account and the trunk that it came through, as its limits are counted (`voxpria_routing.load`)."""
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    ending: events.EndCause | None = None
    """Why we asked Kamailio to end it, if we did."""
    ended_by: events.Side = "edge"
    """Who had us ask that."""
    ending_detail: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What the call is counted under: once it is answered, none of the trunks that stand by."""
        if self.ended_at is not None:
            return ()
        held = self.trunk_ids[self.at_trunk :]
        return tuple(dict.fromkeys([*self.holds, *(held[:1] if self.answered_at else held)]))

    @property
    def trunk_id(self) -> str | None:
        """The trunk whose server is tried, or has answered."""
        return self.trunk_ids[self.at_trunk] if self.at_trunk < len(self.trunk_ids) else None


def question(invite: messages.Invite, digest: Digest | None = None) -> Invite:
    """Return the facts of the INVITE that the decision is about."""
    user, parameters = _user_and_parameters(messages.text(invite.request_uri))
    return Invite(
        request_user=user,
        from_user=_user_and_parameters(messages.text(invite.from_uri))[0],
        to_user=_user_and_parameters(messages.text(invite.to_uri))[0],
        source_address=invite.source.strip("[]"),
        trunk_hint=parameters.get("voxpria-trunk"),
        digest=digest,
        offered=_offered(invite),
    )


def _offered(invite: messages.Invite) -> Offered | None:
    return sdp.offered(messages.text(invite.sdp)) if invite.sdp else None


def _user_and_parameters(uri: str) -> tuple[str, dict[str, str]]:
    """Take a SIP URI (RFC 3261 section 19.1.1) apart as far as we need it: user, and URI parameters."""
    _scheme, _, rest = uri.partition(":")
    user, at, host = rest.rpartition("@")
    words = (host if at else rest).partition("?")[0].split(";")[1:]
    parameters = dict(word.partition("=")[::2] for word in words)
    return unquote(user.split(":", 1)[0]), parameters


class _Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call comes from, whoever asked for it: all of it that does not follow from the decision."""

    id: str
    at: datetime
    account_id: str
    mode: Mode
    from_: str
    to: str
    number_id: str | None
    agent_id: str | None
    is_outbound: bool
    sip_call_id: str
    from_tag: str
    asked: str = ""
    cseq: int = 0
    bridge: Bridge | None = None
    source: str
    transport: str = ""


def opened(
    invite: messages.Invite, decision: Decision, edge_id: str, before: Call | None = None
) -> tuple[Call, list[events.CallEvent]] | None:
    """Return the call and its first events; None for a refused call that is nobody's.

    `before` is the same call as it was when its caller was asked for another INVITE: its record goes on.
    """
    account, number = decision.carrier, decision.number
    if account is None:
        return None
    at = messages.time(invite.at)
    origin = _Origin(
        id=before.id if before else record_id(invite.id, at),
        at=before.opened_at if before else at,
        account_id=account.account_id,
        mode=account.mode,
        from_=decision.caller,
        to=decision.called,
        number_id=number.id if number else None,
        agent_id=number.agent_id if number else None,
        is_outbound=decision.is_outbound,
        sip_call_id=messages.text(invite.call_id),
        from_tag=messages.text(invite.from_tag),
        asked=f"{invite.index}:{invite.label}",
        cseq=invite.cseq,
        source=f"{invite.source}:{invite.port}",
        transport=invite.transport,
    )
    return _begun(origin, decision, edge_id)


def placed(order: Place, decision: Decision, edge_id: str, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that the API asked for, as it is before it is dialled, and its first events."""
    origin = _Origin(
        id=order.call_id,
        at=at,
        account_id=order.account_id,
        mode=order.mode,
        from_=order.from_,
        to=order.to,
        number_id=order.number_id,
        agent_id=order.agent_id,
        is_outbound=True,
        sip_call_id=f"{order.call_id}@voxpria",
        from_tag=f"{CARRIER_TAG}{order.call_id.removeprefix('call_')}",
        bridge=Bridge(),
        source="api",
    )
    return _begun(origin, decision, edge_id)


def _begun(origin: _Origin, decision: Decision, edge_id: str) -> tuple[Call, list[events.CallEvent]]:
    """Return a call as it begins, by what was decided on it, and its first events."""
    is_dialled = isinstance(decision, Dial)
    max_duration_seconds = decision.number.max_duration_seconds if decision.number else None
    call = Call(
        id=origin.id,
        sip_call_id=origin.sip_call_id,
        from_tag=origin.from_tag,
        asked=origin.asked,
        cseq=origin.cseq,
        opened_at=origin.at,
        max_duration_seconds=max_duration_seconds or 0,
        is_captured=isinstance(decision, Dial) and _is_captured(decision),
        is_dialled=is_dialled,
        is_outbound=origin.is_outbound,
        bridge=origin.bridge,
        trunk_ids=tuple(target.id for target in decision.targets) if isinstance(decision, Dial) else (),
        holds=(account_key(origin.account_id, origin.mode), decision.carrier.id) if isinstance(decision, Dial) else (),
    )
    invited = events.Invited(
        id=event_id(call.id, "invited"),
        call_id=call.id,
        at=origin.at,
        account_id=origin.account_id,
        mode=origin.mode,
        direction="outbound" if origin.is_outbound else "inbound",
        from_=origin.from_,
        to=origin.to,
        number_id=origin.number_id,
        trunk_id=decision.carrier.id if decision.carrier else None,
        agent_id=origin.agent_id,
        edge_id=edge_id,
        sip_call_id=call.sip_call_id,
        source=origin.source,
        transport=origin.transport,
        max_duration_seconds=max_duration_seconds,
        refusal=None if isinstance(decision, Dial) else decision.cause,
        explanation=decision.explanation,
    )
    if isinstance(decision, Dial):
        return call, [invited]
    ended, told = _end(call, origin.at, "refused", "edge", decision.sip_answer, decision.explanation.summary)
    return ended, [invited, *told]


def in_the_middle(call: Call) -> Call:
    """Return a call that came in as one in whose middle we are."""
    return msgspec.structs.replace(call, bridge=Bridge(tag=f"{AGENT_TAG}{call.id.removeprefix('call_')}"))


def _is_captured(decision: Dial) -> bool:
    return decision.carrier.is_recorded or any(target.is_recorded for target in decision.targets)


def dial_half(
    where: messages.Invite,
    decision: Dial,
    at_trunk: int,
    record: str,
    call_id: str,
    variables: Mapping[str, str],
    guard: Guard,
) -> messages.Dial:
    """Return the command to dial one half of a call that we stand in the middle of: its media is ours to arrange."""
    command = dial(where, decision, at_trunk, record, guard)
    ours = _headers(decision, decision.targets[at_trunk], call_id)
    ours += "".join(f"X-VoxPria-Var-{name}: {quote(value, safe='')}\r\n" for name, value in variables.items())
    none = {"to_agent": "", "to_agent_again": "", "to_caller": "", "is_caller_secure": 0, "is_agent_secure": 0}
    return msgspec.structs.replace(command, headers=ours, answer=_NO_MEDIA, **none)


def dial_middle(invite: messages.Invite, decision: Dial, record: str, middle: str) -> messages.Dial:
    """Return the command to send a call to our own user agent, at `middle` (`host:port`), that answers it first."""
    return messages.Dial(
        index=invite.index,
        label=invite.label,
        record=record,
        request_uri=f"sip:{record}@{middle}",
        next_hop=f"sip:{middle}",
        from_uri="",
        to_uri="",
        headers=f"X-VoxPria-Call-Id: {record}\r\n",
        to_agent="",
        to_agent_again="",
        to_caller="",
        answer=_NO_MEDIA,
        is_caller_secure=0,
        is_agent_secure=0,
        ring_ms=0,
        max_duration=decision.number.max_duration_seconds,
        is_guarded=0,
    )


def dial(
    where: messages.Invite | messages.Tried, decision: Dial, at_trunk: int, record: str, guard: Guard
) -> messages.Dial:
    """Return the command to dial one of the decision's targets."""
    target = decision.targets[at_trunk]
    flags = negotiation.media(decision, target, is_captured=_is_captured(decision))
    return messages.Dial(
        index=where.index,
        label=where.label,
        record=record,
        request_uri=request_uri(target, decision.called),
        next_hop=next_hop_uri(target) or "",
        from_uri=user_uri(target, decision.caller) if decision.is_outbound else "",
        to_uri=user_uri(target, decision.called) if decision.is_outbound else "",
        headers=_headers(decision, target, record),
        to_agent=flags.to_agent,
        to_agent_again=flags.to_agent_again,
        to_caller=flags.to_caller,
        answer=flags.answer,
        is_caller_secure=int(asked_of_caller(decision.carrier, is_outbound=decision.is_outbound) == "required"),
        is_agent_secure=int(target.media_encryption == "required"),
        ring_ms=1000 * (decision.number.ring_timeout_seconds or target.ring_timeout_seconds or 0),
        max_duration=decision.number.max_duration_seconds,
        is_guarded=int(guard(target)),
    )


def reject(
    invite: messages.Invite, decision: Reject, record: str, challenges: Sequence[str]
) -> messages.Reject | messages.Drop:
    """Return the command to refuse the call; `record` is empty for a call that is nobody's.

    A source that nobody knows may be someone else's address: over UDP it gets one answer, no longer than its question,
    or none. Who it was that it dialled, it is not told.
    """
    code, reason = decision.sip_answer
    headers = "".join(challenges)
    if decision.is_stranger and invite.transport == "udp":
        has_room = decision.cause is not Cause.CREDENTIALS_NEEDED or challenges
        if not has_room or invite.spare_bytes < len(headers) + OWN_BYTES:
            return messages.Drop(index=invite.index, label=invite.label)
    if record and not decision.is_stranger:
        headers += f"X-VoxPria-Call-Id: {record}\r\n"
    if code == 503 or decision.retry_after_seconds:
        headers += f"Retry-After: {decision.retry_after_seconds or _RETRY_SECONDS}\r\n"
    return messages.Reject(
        index=invite.index,
        label=invite.label,
        code=code,
        reason=reason,
        headers=headers,
        is_once=int(decision.is_stranger),
    )


def give_up(message: messages.Tried) -> messages.Reject:
    """Return the command to end a call that no server took: by the last one's answer, or 503 if that was not its."""
    code, reason = (message.code, messages.text(message.reason)) if message.cause in _ANSWERS else _UNAVAILABLE
    record, note = messages.text(message.record), messages.text(message.note)
    headers = f"X-VoxPria-Call-Id: {record}\r\n"
    if note.lower().startswith("reason:"):
        headers += f"{note}\r\n"
    if code == 503:
        headers += f"Retry-After: {_RETRY_SECONDS}\r\n"
    return messages.Reject(index=message.index, label=message.label, code=code, reason=reason, headers=headers)


def goes_elsewhere(message: messages.Tried) -> bool:
    """Tell whether another server might take the call: not where the caller caused it, or the called one said no."""
    if message.cause == "rejected":
        return message.code in _NOBODY_THERE or 500 <= message.code < 600
    return message.cause in {"unreachable", "forbidden", "no_answer", *_UNSATISFIED}


def is_failure_of_server(message: messages.Tried) -> bool:
    """Tell whether the server is to blame, so that too many of these keep calls from it."""
    return message.cause == "unreachable" or (message.cause == "rejected" and 500 <= message.code < 600)


def at_next_trunk(call: Call, decision: Dial) -> Call:
    """Return the call as it is tried at the next of the decision's targets."""
    trunk_ids = tuple(target.id for target in decision.targets)
    return msgspec.structs.replace(call, trunk_ids=trunk_ids, at_trunk=call.at_trunk + 1)


def moved_on(call: Call, message: messages.Tried, target: Trunk, detail: str | None) -> list[events.CallEvent]:
    """Return what is reported of a try at `target` that came to nothing, while another follows."""
    cause, words = _cause(call, message)
    event = events.Attempted(
        id=event_id(call.id, f"attempted {call.at_trunk}"),
        call_id=call.id,
        at=messages.time(message.at),
        trunk_id=target.id,
        server=f"{target.server}:{target.port}/{target.transport}",
        cause=cause,
        sip_code=message.code,
        sip_reason=messages.text(message.reason),
        detail=detail or words,
    )
    return [event]


def given_up(call: Call, message: messages.Tried, detail: str | None) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that no server took, and what is reported."""
    cause, words = _cause(call, message)
    answer = give_up(message)
    by: events.Side = "edge" if message.cause == "no_media" else _side(call, "agent")
    detail = detail or words or messages.text(message.note) or None
    return _end(call, messages.time(message.at), cause, by, (answer.code, answer.reason), detail)


def _headers(decision: Dial, target: Trunk, record: str) -> str:
    """Return the headers that tell an agent's server of the call; percent-encoded, so that none can break out."""
    if decision.is_outbound:
        identity = f"P-Asserted-Identity: <{user_uri(target, decision.caller)}>\r\n"
        return f"X-VoxPria-Call-Id: {record}\r\n{identity if target.is_identity_asserted else ''}"
    number = decision.number
    values = {
        "Call-Id": record,
        "Agent-Id": number.agent_id,
        "Language": number.language,
        "First-Message": number.first_message,
    }
    ours = "".join(f"X-VoxPria-{name}: {quote(value, safe='')}\r\n" for name, value in values.items() if value)
    return ours + (_for_elevenlabs(decision, record) if target.provider == "elevenlabs" else "")


def _for_elevenlabs(decision: Dial, record: str) -> str:
    """Return the headers that ElevenLabs takes the call's id and its caller from."""
    caller = f"X-CALLER-ID: {decision.caller}\r\n" if _NUMBER.fullmatch(decision.caller) else ""
    return f"X-CALL-ID: {record}\r\n{caller}"


def rang(call: Call, message: messages.Progress) -> list[events.CallEvent]:
    """Return what the first ringing of a call is reported as."""
    return [events.Ringing(id=event_id(call.id, "ringing"), call_id=call.id, at=messages.time(message.at))]


def answered(call: Call, message: messages.Answered) -> tuple[Call, list[events.CallEvent]]:
    """Return the answered call, and what is reported; nothing the second time (a repeated 200)."""
    if call.answered_at is not None or call.ended_at is not None:
        return call, []
    at = messages.time(message.at)
    event = events.Answered(
        id=event_id(call.id, "answered"),
        call_id=call.id,
        at=at,
        recording=call.is_captured,
        trunk_id=call.trunk_id,
    )
    return msgspec.structs.replace(call, answered_at=at), [event]


def _end(
    call: Call, at: datetime, cause: events.EndCause, by: events.Side, answer: SipAnswer, detail: str | None = None
) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as it is over, and what is reported; `answer` is what its INVITE got if nobody answered it."""
    code, reason = _OK if call.answered_at else answer
    event = events.Ended(
        id=event_id(call.id, "ended"),
        call_id=call.id,
        at=at,
        cause=cause,
        by=by,
        sip_code=code,
        sip_reason=reason,
        detail=detail,
    )
    return msgspec.structs.replace(call, ended_at=at), [event]


def cut_off(call: Call, message: messages.Insecure) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that is not let through, as its answer is not encrypted, and what is reported."""
    if call.ended_at is not None:
        return call, []
    return _end(call, messages.time(message.at), "insecure_media", "edge", INSECURE)


def ended(call: Call, message: messages.Ended) -> tuple[Call, list[events.CallEvent]]:
    """Return the ended call, and what is reported; nothing the second time: the first end is the end."""
    if call.ended_at is not None:
        return call, []
    cause, detail = _cause(call, message)
    by = call.ended_by if message.by == "edge" or _is_our_doing(call) else _side(call, message.by)
    answer = message.code, messages.text(message.reason)
    return _end(call, messages.time(message.at), cause, by, answer, detail or _said(message))


def _is_our_doing(call: Call) -> bool:
    """Whether a BYE that Kamailio saw was ours, whoever it seemed to be from: we are one end of each half."""
    return call.bridge is not None and call.ending is not None


def _side(call: Call, by: events.Side) -> events.Side:
    """Return who did what Kamailio tells of, which takes whoever sent the INVITE for the caller."""
    others: dict[events.Side, events.Side] = {"caller": "agent", "agent": "caller"}
    return others.get(by, by) if call.is_outbound else by


def _said(message: messages.Ended) -> str | None:
    note = messages.text(message.note)[:_LONGEST_NOTE]
    return f"The BYE says why: {note}." if note.strip() else None


def _cause(call: Call, message: messages.Ended | messages.Tried) -> tuple[events.EndCause, str | None]:
    is_ours = isinstance(message, messages.Ended) and (message.by == "edge" or _is_our_doing(call))
    if is_ours and call.ending is not None:
        return call.ending, call.ending_detail
    if message.cause in _OWN_WORDS:
        return _OWN_WORDS[message.cause]
    for cause in get_args(events.EndCause):
        if cause == message.cause:
            return cause, None
    return "lost", f"Kamailio reported an end that is not known here: {message.cause}."


def canceled_by_api(call: Call, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as ended before anybody answered, because the API was told to."""
    return _end(call, at, "canceled", "api", API_ANSWER)


def hung_up_by_api(call: Call, at: datetime) -> tuple[Call, list[events.CallEvent]]:
    """Return the answered call as ended because the API was told to, where Kamailio can't say that it did."""
    return _end(
        call, at, "hangup", "api", _OK, "Kamailio had been restarted during the call, so only its media was ended."
    )


def failed(
    call: Call, at: datetime, cause: events.EndCause, by: events.Side, detail: str
) -> tuple[Call, list[events.CallEvent]]:
    """Return the call that we placed as ended by what came of it before both were connected."""
    return _end(call, at, cause, by, _UNAVAILABLE, detail)


def lost(call: Call, at: datetime, detail: str) -> tuple[Call, list[events.CallEvent]]:
    """Return the call as ended by losing sight of it."""
    return _end(call, at, "lost", "edge", _INTERNAL_ERROR, detail)
