"""What Kamailio is told to do with a call: dial a server, refuse it, drop it. Pure."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import msgspec
from voxpria_routing.decision import Cause, Dial, Reject
from voxpria_routing.media import asked_of_caller
from voxpria_routing.snapshot import Trunk
from voxpria_routing.uris import next_hop_uri, request_uri, user_uri

from voxpria_edge.kit.ids import call_of_record, half_of_agent
from voxpria_edge.media import negotiation
from voxpria_edge.proxy import messages
from voxpria_edge.trunks.resolve import Guard

_NUMBER = re.compile(r"\+?[0-9]{3,15}")
_ANSWERS = {"rejected", "no_answer"}
UNAVAILABLE = (503, "Service Unavailable")
_REDIRECTED = (502, "Bad Gateway")
_LONGEST_RING_MS = 600_000
"""As long as Kamailio keeps any INVITE."""
_NO_MEDIA = "none"
"""Tells Kamailio that rtpengine is not its affair in this call."""
OWN_BYTES = 145
"""What an answer has beside what it repeats and `headers`: status line, tag, received, rport, Server, lengths."""


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


def dial_middle(invite: messages.Invite, decision: Dial, call_id: str, middle: str) -> messages.Dial:
    """Return the command to send a call to our own user agent, at `middle` (`host:port`).

    It answers whoever calls in first. An agent that calls out it answers last: until then its INVITE is a half of its
    own, that rings for as long as the other half may take.
    """
    return messages.Dial(
        index=invite.index,
        label=invite.label,
        record=half_of_agent(call_id) if decision.is_outbound else call_id,
        trunk="",
        request_uri=f"sip:{call_id}@{middle}",
        next_hop=f"sip:{middle}",
        from_uri="",
        to_uri="",
        headers=f"X-VoxPria-Call-Id: {call_id}\r\n",
        to_agent="",
        to_agent_again="",
        to_caller="",
        answer=_NO_MEDIA,
        is_caller_secure=0,
        is_agent_secure=0,
        ring_ms=_LONGEST_RING_MS if decision.is_outbound else 0,
        max_duration=decision.number.max_duration_seconds,
        is_guarded=0,
    )


def dial(
    where: messages.Invite | messages.Tried, decision: Dial, at_trunk: int, record: str, guard: Guard
) -> messages.Dial:
    """Return the command to dial one of the decision's targets."""
    target = decision.targets[at_trunk]
    flags = negotiation.media(decision, target, is_captured=negotiation.is_captured(decision))
    return messages.Dial(
        index=where.index,
        label=where.label,
        record=record,
        trunk=target.id,
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
    if decision.retry_after_seconds:
        headers += f"Retry-After: {decision.retry_after_seconds}\r\n"
    return messages.Reject(
        index=invite.index,
        label=invite.label,
        code=code,
        reason=reason,
        headers=headers,
        is_once=int(decision.is_stranger),
    )


def of_last_run(invite: messages.Invite) -> messages.Reject:
    """Return the command to refuse our own INVITE of a call that is given up, and that has a record already."""
    code, reason = UNAVAILABLE
    return messages.Reject(index=invite.index, label=invite.label, code=code, reason=reason)


def is_redirection(code: int) -> bool:
    """Tell whether a server's answer sends the call elsewhere (RFC 3261 section 21.3): where it leads, no call goes."""
    return 300 <= code < 400


def give_up(message: messages.Tried) -> messages.Reject:
    """Return the command to end a call that no server took: by the last one's answer, or 503 if that was not its.

    It says nothing of when to try again: that would keep the carrier's other calls away too (RFC 3261 section 21.5.4).
    """
    code, reason = (message.code, messages.text(message.reason)) if message.cause in _ANSWERS else UNAVAILABLE
    if is_redirection(code):
        code, reason = _REDIRECTED  # one without Contact headers says nothing
    record, note = messages.text(message.record), messages.text(message.note)
    headers = f"X-VoxPria-Call-Id: {call_of_record(record)}\r\n"
    if note.lower().startswith("reason:"):
        headers += f"{note}\r\n"
    return messages.Reject(index=message.index, label=message.label, code=code, reason=reason, headers=headers)


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
