"""A call as the edge remembers it, from its INVITE until it is done with. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from voxpria_routing import events
from voxpria_routing.decision import Dial
from voxpria_sip.dialog import Dialog

from voxpria_edge.calls import legs
from voxpria_edge.kit.ids import event_id
from voxpria_edge.proxy import messages

_LONGEST_SESSION_SECONDS = 7 * 86400
CARRIER_TAG, AGENT_TAG = "voxcarrier-", "voxagent-"
"""How our tags begin in the two halves of a call in whose middle we are, so that its messages can be told apart."""


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
    agent_record: str = ""
    """By which Kamailio knows the agent's half; the other half is known by the call's id."""
    agent_trunk_id: str = ""
    """The trunk whose server that half has called."""
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
    marks: str = ""
    """What tells its INVITE from all but its own repetitions, see `repeats`. Empty unless it came in."""
    opened_at: datetime
    max_duration_seconds: int
    is_captured: bool
    is_dialled: bool
    is_outbound: bool = False
    """True where the agent's side calls: whoever called first is then the agent."""
    bridge: Bridge | None = None
    """Of a call in whose middle we are: the two that we stand between."""
    to_caller: Dialog | None = None
    to_agent: Dialog | None = None
    """Of a call that passes through us: the dialogs of its two sides, as the other side holds each."""
    unrecorded: str | None = None
    """Why it is not recorded, as a sentence, though its trunk would have it so."""
    spoken: Spoken | None = None
    """The announcement that was spoken before its recording began."""
    trunk_ids: tuple[str, ...] = ()
    """The trunks whose servers may be tried, in turn."""
    at_trunk: int = 0
    """Which of them is."""
    holds: tuple[str, ...] = ()
    """The account and the trunk that it came through, as its limits are counted (`voxpria_routing.load`).

    Of a call that the API places: the account, and the trunks whose servers its agent may be called on, in turn.
    """
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    expires: Mapping[str, datetime] = {}
    """Until when it lasts if nobody refreshes it (RFC 4028), by what Kamailio knows it by."""
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
        return tuple(dict.fromkeys([*self.holds, *(held[:1] if self.is_connected else held)]))

    @property
    def is_connected(self) -> bool:
        """Whether a trunk's server has taken it: of a call that we answered first, the agent's."""
        awaits_agent = self.is_ours_to_answer and self.bridge is not None and self.bridge.agent is None
        return self.answered_at is not None and not awaits_agent

    @property
    def is_ours_to_answer(self) -> bool:
        """Whether it came in and we answer its caller before the agent is called, see decision 21."""
        return self.bridge is not None and self.bridge.tag != ""

    @property
    def records(self) -> dict[str, str]:
        """What Kamailio knows the call by: its id, and that of the agent's half if we are in its middle.

        To each the trunk whose server was called; empty where we were.
        """
        if self.bridge is None:
            return {self.id: self.trunk_id or ""}
        called = self.trunk_id if self.is_outbound else ""
        agents = {self.bridge.agent_record: self.bridge.agent_trunk_id} if self.bridge.agent_record else {}
        return {self.id: called or "", **agents}

    @property
    def expires_at(self) -> datetime | None:
        """When the first of its sessions is over that nobody refreshes."""
        return min(self.expires.values(), default=None)

    @property
    def trunk_id(self) -> str | None:
        """The trunk whose server is tried, or has answered."""
        return self.trunk_ids[self.at_trunk] if self.at_trunk < len(self.trunk_ids) else None


def marks_of(invite: messages.Invite) -> str:
    """Return what an INVITE has in common with its own repetitions alone (RFC 3261 section 17.2.3).

    Its source is part of it: nobody else can take a call up by its headers.
    """
    fields = (invite.source, invite.branch, invite.call_id, invite.from_tag, str(invite.cseq))
    return hashlib.sha256(" ".join(fields).encode()).hexdigest()[:32]


def at_next_trunk(call: Call, decision: Dial) -> Call:
    """Return the call as it is tried at the next of the decision's targets."""
    trunk_ids = tuple(target.id for target in decision.targets)
    return msgspec.structs.replace(call, trunk_ids=trunk_ids, at_trunk=call.at_trunk + 1)


def with_agent_on(call: Call, trunk_ids: Sequence[str]) -> Call:
    """Return a call that the API places as its agent is, or may yet be, called on these trunks and no others."""
    return msgspec.structs.replace(call, holds=(*call.holds[:1], *trunk_ids))


def rang(call: Call, message: messages.Progress) -> list[events.CallEvent]:
    """Return what the first ringing of a call is reported as."""
    return [events.Ringing(id=event_id(call.id, "ringing"), call_id=call.id, at=messages.time(message.at))]


def answered(call: Call, message: messages.Answered) -> tuple[Call, list[events.CallEvent]]:
    """Return the answered call, and what is reported; nothing the second time (a repeated 200)."""
    if call.answered_at is not None or call.ended_at is not None:
        return call, []
    call = msgspec.structs.replace(refreshed(call, message), answered_at=messages.time(message.at))
    if call.bridge is None:
        dialogs = {"to_caller": legs.answered(call.to_caller, message), "to_agent": legs.to_agent(message)}
        call = msgspec.structs.replace(call, **dialogs)
    return call, [answer_of(call)] if call.is_connected else []


def connected(before: Call, call: Call) -> list[events.CallEvent]:
    """Return what is reported of a call that we answered first, once its agent's server has taken it."""
    return [answer_of(call)] if call.is_connected and not before.is_connected else []


def answer_of(call: Call) -> events.Answered:
    """Return what the answer of an answered call is reported as."""
    assert call.answered_at is not None
    return events.Answered(
        id=event_id(call.id, "answered"),
        call_id=call.id,
        at=call.answered_at,
        recording=call.is_captured,
        trunk_id=call.trunk_id if call.is_connected else None,
    )


def refreshed(call: Call, message: messages.Answered | messages.Moved) -> Call:
    """Return the call with its session, or that of one of its halves, as long as a 2xx says."""
    record = messages.text(message.record)
    expires = {name: at for name, at in call.expires.items() if name != record}
    if message.expires > 0:
        expires[record] = messages.time(message.at) + timedelta(seconds=min(message.expires, _LONGEST_SESSION_SECONDS))
    return msgspec.structs.replace(call, expires=expires)


def moved(call: Call, message: messages.Moved) -> Call:
    """Return the call with its sides where they say that they are now."""
    return msgspec.structs.replace(
        call,
        to_caller=legs.moved(call.to_caller, message.caller),
        to_agent=legs.moved(call.to_agent, message.agent),
    )
