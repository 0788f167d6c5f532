"""Calls that are being set up: which server is tried, what it wants, and which is tried next."""

from collections.abc import Callable, Coroutine

import msgspec
from voxpria_routing.decision import Dial
from voxpria_routing.snapshot import Trunk

from voxpria_edge.admission.admission import Admission
from voxpria_edge.calls import call as calls
from voxpria_edge.calls import endings, verdicts
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.half import Half
from voxpria_edge.desk.middle import Middle
from voxpria_edge.kit.background import Background
from voxpria_edge.kit.ids import call_of_record
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Evapi
from voxpria_edge.trunks import credentials
from voxpria_edge.trunks.resolve import Guard

Diagnosis = Coroutine[None, None, str]
Diagnose = Callable[[Trunk], Diagnosis]
"""Finds out why a trunk's server could not be reached."""
_SETTLE_SECONDS = 2.0


class Dialling:
    """Has servers dialled, one after the other, until one takes the call."""

    def __init__(
        self, book: Book, kamailio: Evapi, admission: Admission, middle: Middle, diagnose: Diagnose, guard: Guard
    ) -> None:
        """`guard` tells whose server must be outside."""
        self._book, self._kamailio, self._admission, self._middle = book, kamailio, admission, middle
        self._diagnose, self._guard = diagnose, guard
        self._dialled: dict[str, Dial] = {}
        """What was decided on calls that are being set up, so that their next trunk can be tried."""
        self._background = Background()

    def dial(self, invite: messages.Invite, call: Call, decision: Dial) -> None:
        """Have the first of the decision's servers dialled for a call that came in."""
        self._kamailio.send(verdicts.dial(invite, decision, 0, call.id, self._guard))
        self._dialled[call.id] = decision
        self._admission.begin(call, decision)

    def authorize(self, asked: messages.Challenged) -> None:
        """Answer the challenge of a server, or say why there is no answer."""
        target, uri = self._admission.trunk(asked.trunk), messages.text(asked.request_uri)
        headers = credentials.headers_of(messages.text(asked.head))
        header = target and credentials.authorization(target, asked.method, uri, asked.code, headers)
        cause = "no_trunk" if target is None else "unknown_digest" if target.username else "no_credentials"
        self._kamailio.send(messages.Authorize(index=asked.index, label=asked.label, header=header or "", cause=cause))

    def dial_half(self, invite: messages.Invite, half: Half) -> None:
        """Let our own INVITE through. The callee's half is the call itself; the agent's half has no record."""
        command = verdicts.dial_half(
            invite, half.decision, half.at_trunk, half.record, half.call_id, half.variables, self._guard
        )
        self._kamailio.send(command)
        self._admission.dialled(half.record, half.target)
        call = self._book.calls.get(half.record)
        if call is not None and not call.asked:  # no INVITE of its own came in
            call = msgspec.structs.replace(call, asked=invite.asked, cseq=invite.cseq)
        self._book.remember(invite.id, call, [])

    def expect(self, call: Call, decision: Dial) -> None:
        """Count a call whose callee is called from our middle, before it is dialled."""
        self._dialled[call.id] = decision
        self._admission.begin(call, decision)

    def expect_agent(self, call_id: str, decision: Dial) -> None:
        """Count a call that the API places at all trunks that its agent may be called on, before any is."""
        call = self._book.open_call(call_id)
        if call is not None:
            self._with_agent_on(call, decision, 0)

    def _with_agent_on(self, call: Call, decision: Dial, at_trunk: int, *, is_taken: bool = False) -> None:
        target, others = decision.targets[at_trunk], decision.targets[at_trunk + 1 :]
        ids = [trunk.id for trunk in (target, *(() if is_taken else others))]
        self._book.calls[call.id] = moved = calls.with_agent_on(call, ids)
        is_new = not is_taken and (at_trunk > 0 or target.id not in call.holds)
        self._admission.with_agent_on(moved, target if is_new else None)

    def note_ringing(self, message: messages.Progress) -> None:
        """Note that a server rings, also for the agent's half of a call that we place."""
        record = messages.text(message.record)
        call, half = self._book.calls.get(record), self._half_to_agent(record)
        decision = self._dialled.get(call.id) if call else None
        if call is not None and decision is not None:
            self._admission.rang(call.id, decision.targets[call.at_trunk])
        elif half is not None:
            self._admission.rang(record, half.target)
        rings = call or self._answered_first(record)
        self._book.remember(message.id, rings, calls.rang(rings, message) if rings else [])

    def _answered_first(self, record: str) -> Call | None:
        """Return the call whose agent's half has this record, if it came in and we have answered it."""
        call = self._book.calls.get(call_of_record(record))
        return call if call is not None and not call.is_outbound else None

    def note_answer(self, message: messages.Answered) -> None:
        """Note that a server took the call, or the agent's half of one."""
        record = messages.text(message.record)
        call, half = self._book.calls.get(record), self._half_to_agent(record)
        if half is not None:
            self._admission.half_is_answered(half)
            whole = self._book.open_call(half.call_id)
            if whole is not None and half.decision.is_outbound != whole.is_outbound:
                self._with_agent_on(whole, half.decision, half.at_trunk, is_taken=True)
        if call is None:
            whole = self._book.open_call(call_of_record(record))
            self._book.remember(message.id, calls.refreshed(whole, message) if whole else None, [])
        else:
            self._book.remember(message.id, *calls.answered(call, message))

    def _half_to_agent(self, record: str) -> Half | None:
        """Return the agent's half of a call that we place, while it is being dialled; the callee's is the call."""
        return None if record in self._book.calls else self._middle.half(record)

    def try_on(self, message: messages.Tried) -> None:
        """Go on to the next trunk after one whose server did not take the call, or give the call up."""
        record = messages.text(message.record)
        half = self._middle.half(record)
        if half is not None:
            self._try_half(message, half)
            return
        call = self._book.calls.get(record)
        decision = self._dialled.get(call.id) if call else None
        if call is None or call.ended_at is not None or decision is None:
            self._kamailio.send(verdicts.give_up(message))
            given_up = endings.given_up(call, message, None) if call else (None, [])
            self._book.remember(message.id, *given_up)
            return
        target = decision.targets[call.at_trunk]
        self._admission.failed(call.id, target, message)
        following = self._following(message, call.id, decision, call.at_trunk)
        if following is None:
            self._kamailio.send(verdicts.give_up(message))
            self._admission.traffic.hold(call.id, ())
        else:
            moved = self._move_on(call, following)
            next_target = following.targets[moved.at_trunk]
            self._kamailio.send(verdicts.dial(message, following, moved.at_trunk, call.id, self._guard))
            self._admission.dialled(call.id, next_target)
        self._background.begin(self._explain(message, call, target, is_over=following is None))

    def _try_half(self, message: messages.Tried, half: Half) -> None:
        """Say which trunk a half goes to after one whose server did not take it: who is in the middle dials that."""
        call = self._book.open_call(half.call_id)
        half.cause = message.cause
        self._admission.failed(half.record, half.target, message)
        self._kamailio.send(verdicts.give_up(message))
        if call is None or half.is_offered_more(message.code):
            self._book.remember(message.id, None, [])
            return
        half.following = self._following(message, half.record, half.decision, half.at_trunk)
        is_calls_own = half.decision.is_outbound == call.is_outbound
        if half.following is not None and is_calls_own:
            self._move_on(call, half.following)
        elif half.following is not None:
            self._with_agent_on(call, half.following, half.at_trunk + 1)
        if half.following is None and half.record != call.id:
            self._book.remember(message.id, None, [])  # who is in the middle says why there is no call
            return
        tried = None if is_calls_own else half.record
        self._background.begin(self._explain(message, call, half.target, tried, is_over=half.following is None))

    def _following(self, message: messages.Tried, record: str, decision: Dial, at_trunk: int) -> Dial | None:
        return self._admission.next_decision(record, decision, at_trunk) if endings.goes_elsewhere(message) else None

    def _move_on(self, call: Call, following: Dial) -> Call:
        """Have a call be at the next of the trunks that it may go to."""
        moved = self._book.calls[call.id] = calls.at_next_trunk(call, following)
        if call.id in self._dialled:
            self._dialled[call.id] = following
        self._admission.moved_on(moved, following.targets[moved.at_trunk])
        return moved

    async def _explain(
        self, message: messages.Tried, call: Call, target: Trunk, half: str | None = None, *, is_over: bool
    ) -> None:
        """Report a try that came to nothing; the caller has its answer meanwhile."""
        detail = await self._diagnose(target) if message.cause == "unreachable" else None
        now = self._book.calls.get(call.id, call)
        if is_over:
            self._book.remember(message.id, *endings.given_up(now, message, detail))
        else:
            self._book.remember(message.id, now, endings.moved_on(call, message, target, half, detail))

    def set_aside(self, call: Call) -> None:
        """Count nothing for a call that is about to be judged anew."""
        self._admission.traffic.hold(call.id, ())
        self._settle(call)

    def count(self, call: Call) -> None:
        """Keep count of what the call takes, and of what it says of the server that took it."""
        self._admission.traffic.hold(call.id, call.keys)
        if call.answered_at is not None or call.ended_at is not None:
            self._settle(call)

    def _settle(self, call: Call) -> None:
        decided = self._dialled.pop(call.id, None)
        if decided is not None:
            self._admission.settled(call, decided.targets[call.at_trunk])

    async def settle(self) -> None:
        """Wait a little until every try that came to nothing is reported."""
        await self._background.settle(_SETTLE_SECONDS)
