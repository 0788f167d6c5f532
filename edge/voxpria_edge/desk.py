"""Where calls are answered for: every message of Kamailio's comes here, is acted on, remembered, acknowledged."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import structlog
from structlog.contextvars import bound_contextvars
from voxpria_routing.decide import METHOD, Cause, Decision, Dial, Reject
from voxpria_routing.events import CallEvent, EndCause, Ended, Side
from voxpria_routing.load import Load
from voxpria_routing.snapshot import Trunk

from voxpria_edge import calls, consent, credentials, messages, uac
from voxpria_edge.admission import Admission
from voxpria_edge.background import Background
from voxpria_edge.calls import Call
from voxpria_edge.challenged import Challenged, TooShort, Waiting, key_of
from voxpria_edge.consent import Consent, SoundOf
from voxpria_edge.half import Half
from voxpria_edge.kamailio import Evapi, Rpc, RpcError
from voxpria_edge.resolve import Guard
from voxpria_edge.spool import Change, Spool
from voxpria_edge.strangers import Strangers

_log = structlog.get_logger(__name__)

Progressed = TypeVar("Progressed", messages.Answered, messages.Ended, messages.Tried)

Diagnosis = Coroutine[None, None, str]
_MOST_ACKNOWLEDGED_AT_ONCE = 1000
_MOST_DIALLING = 10_000
_INTERVAL_TOO_SMALL = 422
"""RFC 4028 section 6: the caller is to ask again, with the session's length that the answer names."""
_HANG_UP_TRIES, _HANG_UP_SECONDS = 10, 1.0
_SETTLE_SECONDS = 2.0


class Middle(Protocol):
    """What stands in the middle of the calls that we place (`bridge.Bridges`)."""

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return which half of which call an INVITE is."""
        ...

    def half(self, record: str) -> Half | None:
        """Return the half that is being dialled and has this record."""
        ...

    @property
    def place(self) -> str:
        """Where calls are sent that it answers first: `host:port`."""
        ...

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Know a call that is about to come in: to be answered, told this, and only then connected with its agent."""
        ...

    async def hang_up(self, call_id: str) -> bool:
        """End both halves of a call, if it is one of ours."""
        ...

    def done(self, call: Call, by: Side | None) -> None:
        """Be done with a call that is over, ended by one side."""
        ...


class NoMiddle:
    """Of an edge that places no calls, and answers none."""

    place = ""

    def half_of(self, invite: messages.Invite) -> Half | None:
        """Return None: no INVITE is ours."""
        return None

    def half(self, record: str) -> Half | None:
        """Return None: nothing is being dialled."""
        return None

    def announce(self, call: Call, decision: Dial, sound: Path) -> None:
        """Do nothing: no call comes in."""

    async def hang_up(self, call_id: str) -> bool:
        """Return False: no call is ours."""
        return False

    def done(self, call: Call, by: Side | None) -> None:
        """Do nothing."""


class Desk:
    """The calls of this edge that are not done with, and what is done about each message."""

    def __init__(
        self,
        edge_id: str,
        spool: Spool,
        rpc: Rpc,
        admission: Admission,
        diagnose: Callable[[Trunk], Diagnosis],
        guard: Guard,
    ) -> None:
        """`diagnose` finds out why a trunk's server could not be reached, `guard` whose must be outside."""
        self._edge_id, self._spool, self._rpc, self._admission = edge_id, spool, rpc, admission
        self._diagnose, self._guard = diagnose, guard
        self.evapi: Evapi
        self.on_ended: Callable[[Call], None]
        """Takes each dialled call once its end is on disk."""
        self.on_told: Callable[[Sequence[CallEvent]], None] = lambda _: None
        """Hears the events of a change once they are on disk."""
        self.on_replied: Callable[[messages.Replied], None] = lambda _: None
        """Hears what became of requests that are no calls."""
        self.calls: dict[str, Call] = {}
        self.orphans: set[str] = set()
        """Open calls that Kamailio does not know (it was restarted): watched by their media alone."""
        self._backlog: list[messages.Told] | None = None
        self._live: set[str] = set()
        self._acknowledging: asyncio.Queue[str] = asyncio.Queue(_MOST_ACKNOWLEDGED_AT_ONCE)
        self._background = Background()
        self._dialled: dict[str, Dial] = {}
        """What was decided on calls that are being set up, so that their next trunk can be tried."""
        self.sound_of: SoundOf = lambda _: None
        """Gives the sound of an announcement, if there is one."""
        self._dialling: OrderedDict[tuple[int, int], tuple[Trunk, str]] = OrderedDict()
        """By Kamailio's transaction: whose server was last dialled, and the request URI."""
        self.bridges: Middle = NoMiddle()
        """Stands in the middle of the calls that we place, or answer first."""
        self.strangers = Strangers()
        """Who is refused and is nobody's."""
        self._waiting: Waiting[Challenged] = Waiting(self._unanswered)
        self._too_short: Waiting[TooShort] = Waiting(self._stays_refused)

    def remember(self, kept: Sequence[Call]) -> None:
        """Take over what the spool held from an earlier run."""
        self.calls = {call.id: call for call in kept}
        for call in kept:
            self._admission.traffic.hold(call.id, call.keys)

    @property
    def open_calls(self) -> list[Call]:
        """Calls that have not ended."""
        return [call for call in self.calls.values() if call.ended_at is None]

    @property
    def is_current(self) -> bool:
        """Whether all that Kamailio had to say has been heard."""
        return self.evapi.is_connected and self._backlog is None

    async def on_connected(self) -> None:
        """Kamailio is there (again): ask it for all that we may have missed."""
        self._backlog, self._live = [], set()
        self.evapi.send(messages.Resend())

    async def on_message(self, message: messages.Message) -> None:
        """Take one message; during a resend they are collected, and taken in the order of their times."""
        match message:
            case messages.Live(record):
                self._live.add(record)
            case messages.Resent():
                await self._catch_up()
            case messages.Replied():
                self.on_replied(message)
            case messages.Challenged():
                self._authorize(message)
            case _ if self._backlog is not None:
                self._backlog.append(message)
            case _:
                self._take(message)

    async def _catch_up(self) -> None:
        backlog = {message.id: message for message in self._backlog or ()}
        self._backlog = None
        await self.settle()  # what was heard just before the connection broke counts as heard
        unheard = await self._spool.unheard(list(backlog))
        before = {call.id for call in self.open_calls}  # one that is only now let in has yet to come up at Kamailio
        for message in sorted(backlog.values(), key=lambda message: float(message.at)):
            if message.id in unheard:
                self._take(message)
            else:
                await self._acknowledging.put(message.id)
        self.orphans = before & {call.id for call in self.open_calls} - self._live
        for id_ in self.orphans:
            self.evapi.send(messages.Allow(record=id_))
        if backlog or self.orphans:
            _log.info("caught up with Kamailio", messages=len(unheard), orphans=len(self.orphans))

    def _take(self, message: messages.Told) -> None:
        with bound_contextvars(call_id=messages.call_of(message)):
            self._act_on(message)

    def _act_on(self, message: messages.Told) -> None:
        match message:
            case messages.Invite():
                self._answer(message)
            case messages.Tried():
                self._try_on(message)
            case messages.Progress():
                self.orphans.discard(messages.text(message.record))  # only whose transaction it holds Kamailio tells of
                self._note_ringing(message)
            case messages.Answered():
                self.orphans.discard(messages.text(message.record))
                self._note_answer(message)
            case messages.Insecure():
                self._cut_off(message)
            case messages.Ended():
                self._end(message, self._meant(message))

    def _note_ringing(self, message: messages.Progress) -> None:
        record = messages.text(message.record)
        call, half = self.calls.get(record), self._half_to_agent(record)
        decision = self._dialled.get(call.id) if call else None
        if call is not None and decision is not None:
            self._admission.rang(call.id, decision.targets[call.at_trunk])
        elif half is not None:
            self._admission.rang(record, half.target)
        self._remember(message.id, call, calls.rang(call, message) if call else [])

    def _note_answer(self, message: messages.Answered) -> None:
        record = messages.text(message.record)
        half = self._half_to_agent(record)
        if half is not None:
            self._admission.half_is_answered(half)
        self._advance(message, calls.answered, self.calls.get(record))

    def _half_to_agent(self, record: str) -> Half | None:
        """Return the agent's half of a call that we place, while it is being dialled; the callee's is the call."""
        return None if record in self.calls else self.bridges.half(record)

    def _answer(self, invite: messages.Invite) -> None:
        half = self.bridges.half_of(invite)
        if half is not None:
            self._dial_half(invite, half)
            return
        asked_before = self._waiting.take(key_of(invite))
        if asked_before is not None:  # the same call, now with its credentials
            self._remember(asked_before.invite.id, None, [])
        too_short = self._too_short.take(key_of(invite))
        if too_short is not None:  # the same call, now for longer
            self._remember(too_short.ended.id, None, [])
            self._set_aside(too_short.call)
        decision = self._admission.judge(invite)
        before = too_short.call if too_short else None
        if isinstance(decision, Dial):
            self._let_in(invite, consent.of_caller(decision, self.sound_of), before)
            return
        opened = calls.opened(invite, decision, self._edge_id, before)
        challenges = self._admission.challenges(invite, decision)
        self.evapi.send(calls.reject(invite, decision, opened[0].id if opened else "", challenges))
        if decision.cause is not Cause.CREDENTIALS_NEEDED or not self._waits(invite, decision):
            self._refuse_call(invite, decision, opened)

    def _let_in(self, invite: messages.Invite, agreed: Consent, before: Call | None) -> None:
        """Send a call on to its agent, or to our own middle where something is to be said first."""
        decision = agreed.decision
        opened = calls.opened(invite, decision, self._edge_id, before)
        assert opened is not None  # a call that is let in has a trunk
        call, told = opened
        call = msgspec.structs.replace(call, unrecorded=agreed.unrecorded)
        if agreed.sound is None:
            self._dial(calls.dial(invite, decision, 0, call.id, self._guard), decision.targets[0])
            self._dialled[call.id] = decision
            self._admission.begin(call, decision)
        else:
            call = calls.in_the_middle(call)
            self.bridges.announce(call, decision, agreed.sound)
            self.evapi.send(calls.dial_middle(invite, decision, call.id, self.bridges.place))
            self._admission.let_in(call)
        self._remember(invite.id, call, told)

    def _dial(self, command: messages.Dial, target: Trunk) -> None:
        """Have a server dialled, and remember which: it may want credentials."""
        self._dialling[command.index, command.label] = target, command.request_uri
        if len(self._dialling) > _MOST_DIALLING:
            self._dialling.popitem(last=False)
        self.evapi.send(command)

    def _authorize(self, asked: messages.Challenged) -> None:
        target, uri = self._dialling.get((asked.index, asked.label), (None, ""))
        headers = credentials.headers_of(messages.text(asked.head))
        header = target and credentials.authorization(target, METHOD, uri, asked.code, headers)
        cause = "unknown_digest" if target and target.username else "no_credentials"
        self.evapi.send(messages.Authorize(index=asked.index, label=asked.label, header=header or "", cause=cause))

    def _dial_half(self, invite: messages.Invite, half: Half) -> None:
        """Let our own INVITE through. The callee's half is the call itself; the agent's half has no record."""
        command = calls.dial_half(
            invite, half.decision, half.at_trunk, half.record, half.call_id, half.variables, self._guard
        )
        self._dial(command, half.target)
        call = self.calls.get(half.record)
        if call is None:
            self._admission.half_is_dialled(half)
        else:
            call = msgspec.structs.replace(call, asked=f"{invite.index}:{invite.label}", cseq=invite.cseq)
        self._remember(invite.id, call, [])

    def load(self) -> Load:
        """Return what is going on, as decisions depend on it."""
        return self._admission.load()

    async def is_unheard(self, command_id: str) -> bool:
        """Tell whether nothing is on disk of a command."""
        return bool(await self._spool.unheard([command_id]))

    async def begin_placed(self, command_id: str, call: Call, decision: Decision, told: Sequence[CallEvent]) -> None:
        """Open a call that the API asked for; it is on disk when this returns. Raises sqlite3.Error."""
        if isinstance(decision, Dial):
            self.calls[call.id] = call
            self._dialled[call.id] = decision
            self._admission.begin(call, decision)
        await self._spool.commit(Change(told, {call.id: call} if call.is_dialled else {}, command_id))
        self.on_told(told)

    def keep_bridge(self, changed: Call) -> None:
        """Remember the middle of a call as it is now."""
        call = self.calls.get(changed.id)
        if call is None or call.ended_at is not None:
            return
        ours = {name: getattr(changed, name) for name in ("bridge", "is_captured", "unrecorded", "spoken")}
        self._remember(None, msgspec.structs.replace(call, **ours), [])

    def fail_placed(self, call_id: str, cause: EndCause, detail: str) -> None:
        """Note why a call that we placed came to nothing, where that is not Kamailio's to tell."""
        call = self.calls.get(call_id)
        if call is None or call.ended_at is not None:
            return
        by: Side = "agent" if cause == "rejected" else "edge"
        self._remember(None, *calls.failed(call, datetime.now(UTC), cause, by, detail))

    async def give_up_placed(self, call_id: str) -> None:
        """End a call that was being set up when our last run ended."""
        why = "The edge's agent was restarted while the call was being set up."
        call = msgspec.structs.replace(self.calls[call_id], ending="lost", ending_detail=why)
        self.calls[call_id] = call
        for ending in (
            self._rpc.refuse(call.sip_call_id, call.cseq or 1, 503, "Service Unavailable", call.id),
            self._rpc.hang_up(call.sip_call_id),
        ):
            try:
                await ending
            except RpcError as error:
                _log.info("nothing of a call was left to be ended", call_id=call_id, error=str(error))
        left = self.calls.get(call_id)
        if left is not None and left.ended_at is None:
            self.lose(left, why)

    def _waits(self, invite: messages.Invite, decision: Reject) -> bool:
        return decision.carrier is not None and self._waiting.add(key_of(invite), Challenged(invite, decision))

    def _unanswered(self, challenged: Challenged) -> None:
        invite, decision = challenged.invite, challenged.decision
        self._refuse_call(invite, decision, calls.opened(invite, decision, self._edge_id))

    def _refuse_call(
        self, invite: messages.Invite, decision: Reject, opened: tuple[Call, list[CallEvent]] | None
    ) -> None:
        if opened is None:
            self.strangers.note(f"{invite.source}:{invite.port}", invite.transport, decision)
            self._remember(invite.id, None, [])
        else:
            self._remember(invite.id, *opened)

    def _try_on(self, message: messages.Tried) -> None:
        """Go on to the next trunk after one whose server did not take the call, or give the call up."""
        call = self.calls.get(messages.text(message.record))
        half = self.bridges.half(messages.text(message.record))
        if half is not None and call is None:
            half.cause = message.cause
            self._admission.failed(half.record, half.target, message)
        decision = self._dialled.get(call.id) if call else None
        if call is None or call.ended_at is not None or decision is None:
            self.evapi.send(calls.give_up(message))
            self._advance(message, lambda call, message: calls.given_up(call, message, None), call)
            return
        target = decision.targets[call.at_trunk]
        self._admission.failed(call.id, target, message)
        following = self._admission.next_decision(call, decision) if calls.goes_elsewhere(message) else None
        if following is None:
            self.evapi.send(calls.give_up(message))
            self._admission.traffic.hold(call.id, ())
        else:
            moved = calls.at_next_trunk(call, following)
            if half is not None:
                half.decision, half.at_trunk = following, moved.at_trunk
            command = calls.dial(message, following, moved.at_trunk, call.id, self._guard)
            self._dial(command, following.targets[moved.at_trunk])
            self._dialled[call.id], self.calls[call.id] = following, moved
            self._admission.moved_on(moved, following.targets[moved.at_trunk])
        self._background.begin(self._explain(message, call, target, goes_on=following is not None))

    async def _explain(self, message: messages.Tried, call: Call, target: Trunk, *, goes_on: bool) -> None:
        """Report a try that came to nothing; the caller has its answer meanwhile."""
        detail = await self._diagnose(target) if message.cause == "unreachable" else None
        now = self.calls.get(call.id, call)
        if goes_on:
            self._remember(message.id, now, calls.moved_on(call, message, target, detail))
        else:
            self._remember(message.id, *calls.given_up(now, message, detail))

    def _cut_off(self, message: messages.Insecure) -> None:
        """End a call that would not be encrypted as its trunk requires: refused while it is set up, or hung up."""
        call = self.calls.get(messages.text(message.record))
        self._remember(message.id, None, [])
        if call is None or call.ended_at is not None:
            return
        if call.answered_at is not None:
            self._background.begin(self.hang_up(call, "insecure_media"))
            return
        self._background.begin(self._refuse(message))
        self._remember(None, *calls.cut_off(call, message))

    async def _refuse(self, message: messages.Insecure) -> None:
        """Give the caller its answer; acknowledge and end what the called side takes for a call."""
        try:
            await self._rpc.reply(message.index, message.label, *calls.INSECURE)
            for request in uac.acknowledged_and_ended(message) if message.code >= 200 else ():
                await self._rpc.send(request)
        except RpcError as error:
            _log.warning("a call could not be cut off", call_id=messages.text(message.record), error=str(error))

    def _end(self, message: messages.Ended, call: Call | None) -> None:
        """Note a call's end; one that was too short a session is over only if its caller does not ask for longer."""
        is_too_short = call is not None and call.ended_at is None and message.code == _INTERVAL_TOO_SMALL
        if call is None or not is_too_short or not self._too_short.add(key_of(call), TooShort(call, message)):
            self._advance(message, calls.ended, call)

    def _set_aside(self, call: Call) -> None:
        """Count nothing for a call that is about to be judged anew."""
        self._admission.traffic.hold(call.id, ())
        decided = self._dialled.pop(call.id, None)
        if decided is not None:
            self._admission.settled(call, decided.targets[call.at_trunk])

    def _stays_refused(self, refused: TooShort) -> None:
        self._advance(refused.ended, calls.ended, self.calls.get(refused.call.id))

    def _meant(self, message: messages.Ended) -> Call | None:
        """Return the call that ended: by its record, or by its transaction if it ended before it had one."""
        if record := messages.text(message.record):
            return self.calls.get(record)
        return next((c for c in self.calls.values() if message.asked and c.asked == message.asked), None)

    def _advance(
        self, message: Progressed, step: Callable[[Call, Progressed], tuple[Call, list[CallEvent]]], call: Call | None
    ) -> None:
        if call is None:
            self._remember(message.id, None, [])
        else:
            self._remember(message.id, *step(call, message))

    def _remember(self, heard: str | None, call: Call | None, told: Sequence[CallEvent]) -> None:
        """Change what is known at once, and put it on disk; the writes keep their order."""
        known: dict[str, Call | None] = {}
        before = self.calls.get(call.id) if call else None
        if call is not None:
            is_done = call.ended_at is not None and not call.is_dialled
            known[call.id] = None if is_done else call
            if is_done:
                self.calls.pop(call.id, None)
            else:
                self.calls[call.id] = call
        if call is not None and call.is_dialled:
            self._count(call)
        ends = call is not None and call.is_dialled and call.ended_at is not None
        ends = ends and (before is None or before.ended_at is None)
        self._background.begin(self._write(Change(told, known, heard), call if ends else None))

    def _count(self, call: Call) -> None:
        """Keep count of what the call takes, and of what it says of the server that took it."""
        self._admission.traffic.hold(call.id, call.keys)
        if call.answered_at is None and call.ended_at is None:
            return
        decided = self._dialled.pop(call.id, None)
        if decided is not None:
            self._admission.settled(call, decided.targets[call.at_trunk])

    async def _write(self, change: Change, ended: Call | None) -> None:
        """Write, then acknowledge: what could not be written comes again with the next resend."""
        try:
            await self._spool.commit(change)
        except Exception:
            _log.exception("the spool can't be written")
            return
        self.on_told(change.events)
        if change.heard is not None:
            await self._acknowledging.put(change.heard)
        if ended is not None:
            self.orphans.discard(ended.id)
            self.bridges.done(ended, next((event.by for event in change.events if isinstance(event, Ended)), None))
            self.on_ended(ended)

    def lose(self, call: Call, detail: str) -> None:
        """End a call that nobody knows any more."""
        self._remember(None, *calls.lost(call, datetime.now(UTC), detail))

    async def end_for_api(self, call_id: str) -> None:
        """End a call because the API was told to, ringing or answered; again, until it is over."""
        for _ in range(_HANG_UP_TRIES):
            call = self.calls.get(call_id)
            if call is None or call.ended_at is not None:
                return
            if call.answered_at is None:
                await self._cancel(call)
            elif call_id in self.orphans:
                self._remember(None, *calls.hung_up_by_api(call, datetime.now(UTC)))
            else:
                await self.hang_up(call, "hangup", by="api")
            await asyncio.sleep(_HANG_UP_SECONDS)
        _log.error("a call could not be ended for the API", call_id=call_id)

    async def _cancel(self, call: Call) -> None:
        """End a call that nobody has answered; where somebody just has, Kamailio refuses to."""
        try:
            await self._rpc.refuse(call.sip_call_id, call.cseq, *calls.API_ANSWER, call.id)
        except RpcError as error:
            _log.info("a ringing call could not be ended", call_id=call.id, error=str(error))
            return
        self._remember(None, *calls.canceled_by_api(self.calls.get(call.id, call), datetime.now(UTC)))

    async def hang_up(self, call: Call, cause: EndCause, by: Side = "edge") -> None:
        """Have Kamailio end a call, for `cause`, as `by` wants it."""
        self.calls[call.id] = msgspec.structs.replace(call, ending=cause, ended_by=by)
        if await self.bridges.hang_up(call.id):
            return
        try:
            await self._rpc.hang_up(call.sip_call_id)
        except RpcError as error:
            _log.warning("a call could not be ended", call_id=call.id, error=str(error))

    def forget(self, call_id: str) -> None:
        """Be done with a call; its last events are on disk by now."""
        self.calls.pop(call_id, None)

    async def acknowledge(self) -> None:
        """Tell Kamailio what is on our disk, until cancelled. What it does not hear it only says once more."""
        while True:
            message_id = await self._acknowledging.get()
            try:
                await self._rpc.acknowledge(message_id)
            except RpcError as error:
                _log.warning("not acknowledged", error=str(error))

    async def settle(self) -> None:
        """Wait until everything taken so far is on disk."""
        await self._background.settle(_SETTLE_SECONDS)
