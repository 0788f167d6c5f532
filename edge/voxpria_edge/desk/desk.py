"""Where calls are answered for: every message of Kamailio's comes here, and is acted on once."""

from collections.abc import Callable

import msgspec
import structlog
from structlog.contextvars import bound_contextvars
from voxpria_routing.decision import Cause, Dial, Reject
from voxpria_routing.events import CallEvent
from voxpria_routing.load import Load

from voxpria_edge.admission import consent
from voxpria_edge.admission.admission import Admission
from voxpria_edge.admission.consent import Consent, SoundOf
from voxpria_edge.admission.strangers import Strangers
from voxpria_edge.calls import beginnings, endings, legs, verdicts
from voxpria_edge.calls import call as calls
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.desk import broken
from voxpria_edge.desk.challenged import Challenged, TooShort, Waiting, key_of
from voxpria_edge.desk.dialling import Dialling
from voxpria_edge.desk.hanging_up import HangingUp
from voxpria_edge.desk.middle import Middle
from voxpria_edge.desk.repeats import REPEATED_SECONDS, Repeats
from voxpria_edge.kit.ids import call_of_record, half_of_agent
from voxpria_edge.kit.lately import Lately
from voxpria_edge.proxy import messages
from voxpria_edge.proxy.kamailio import Evapi

_log = structlog.get_logger(__name__)

_MOST_EARLY = 1000
_INTERVAL_TOO_SMALL = 422
"""RFC 4028 section 6: the caller is to ask again, with the session's length that the answer names."""


class Desk:
    """Hears Kamailio, lets calls in or refuses them, and passes on what is said of them."""

    def __init__(
        self,
        edge_id: str,
        book: Book,
        kamailio: Evapi,
        admission: Admission,
        dialling: Dialling,
        hanging_up: HangingUp,
        middle: Middle,
    ) -> None:
        self._edge_id, self._book, self._kamailio, self._admission = edge_id, book, kamailio, admission
        self._dialling, self._hanging_up, self._middle = dialling, hanging_up, middle
        self.on_replied: Callable[[messages.Replied], None] = lambda _: None
        """Hears what became of requests that are no calls."""
        self.on_taken_back: Callable[[messages.TakenBack], None] = lambda _: None
        """Hears of offers within calls that were refused."""
        self.sound_of: SoundOf = lambda _: None
        """Gives the sound of an announcement, if there is one."""
        self.strangers = Strangers()
        """Who is refused and is nobody's."""
        self._repeats = Repeats(book)
        self._broken = Lately(REPEATED_SECONDS)
        """What was refused by Kamailio itself, as it came."""
        self._early: dict[str, messages.Ended] = {}
        """Ends that were told before their INVITE, by its transaction: a CANCEL is another process's of Kamailio's."""
        self._backlog: list[messages.Told] | None = None
        self._live: set[str] = set()
        self._waiting: Waiting[Challenged] = Waiting(self._unanswered)
        self._too_short: Waiting[TooShort] = Waiting(self._stays_refused)

    def load(self) -> Load:
        """Return what is going on, as decisions depend on it."""
        return self._admission.load()

    async def on_connected(self) -> None:
        """Kamailio is there (again): ask it for all that we may have missed."""
        self._backlog, self._live = [], set()
        self._repeats.look()
        self._kamailio.send(messages.Resend())

    def on_gone(self) -> None:
        """Kamailio is gone: what it has to say from now on is yet to be heard."""
        self._book.is_current = False

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
                self._dialling.authorize(message)
            case messages.TakenBack():
                self.on_taken_back(message)
            case messages.ByeChallenged():
                self._hanging_up.authorize(message)
            case _ if self._backlog is not None:
                self._backlog.append(message)
            case _:
                self._take(message)

    async def _catch_up(self) -> None:
        backlog = {message.id: message for message in self._backlog or ()}
        self._backlog = None
        await self.settle()  # what was heard just before the connection broke counts as heard
        unheard = await self._book.unheard(list(backlog))
        self._book.caught_up()
        before = {call.id: call.asked for call in self._book.open_calls}
        for message in sorted(backlog.values(), key=lambda message: float(message.at)):
            if message.id in unheard:
                self._take(message)
            else:
                await self._book.acknowledged(message.id)
        # a call that is only now let in, or let in once more, has yet to come up there
        known = {call.id for call in self._book.open_calls if before.get(call.id) == call.asked}
        orphans = known - self._live
        self._book.orphans = orphans
        for call in map(self._book.calls.__getitem__, orphans):
            places = legs.places(call.to_caller, call.to_agent) if call.bridge is None else ""
            for record, trunk in call.records.items():
                self._kamailio.send(messages.Allow(record=record, trunk=trunk, places=places))
        self._kamailio.send(messages.AllAllowed())
        self._book.is_current = True
        if backlog or orphans:
            _log.info("caught up with Kamailio", messages=len(unheard), orphans=len(orphans))

    def _take(self, message: messages.Told) -> None:
        with bound_contextvars(call_id=messages.call_of(message)):
            self._act_on(message)

    def _act_on(self, message: messages.Told) -> None:
        match message:
            case messages.Invite():
                self._answer(message)
                self._end_early(message)
            case messages.Broken():
                self.note_broken(message)
            case messages.Tried():
                self._dialling.try_on(message)
            case messages.Progress():
                self._book.orphans.discard(messages.text(message.record))  # it tells only of whose transaction it holds
                self._dialling.note_ringing(message)
            case messages.Answered():
                self._book.orphans.discard(messages.text(message.record))
                self._dialling.note_answer(message)
            case messages.Stray():
                self._hanging_up.end_stray(message)
            case messages.Moved():
                self._note_where(message)
            case messages.Unfit():
                self._hanging_up.cut_off(message)
            case messages.Ended():
                self._end(message)

    def _note_where(self, message: messages.Moved) -> None:
        call = self._book.open_call(call_of_record(messages.text(message.record)))
        moved = calls.moved(calls.refreshed(call, message), message) if call else None
        self._book.remember(message.id, moved if moved != call else None, [])  # most only say that they are still there

    def _answer(self, invite: messages.Invite) -> None:
        half = self._middle.half_of(invite)
        if half is not None:
            self._dialling.dial_half(invite, half)
            return
        if self._middle.is_own(invite):  # nobody leads the call that our last run was setting up
            self._kamailio.send(verdicts.of_last_run(invite))
            self._book.remember(invite.id, None, [])
            return
        asked_before = self._waiting.take(key_of(invite))
        if asked_before is not None:  # the same call, now with its credentials
            self._book.remember(asked_before.invite.id, None, [])
        too_short = self._too_short.take(key_of(invite))
        if too_short is not None:  # the same call, now for longer
            self._book.remember(too_short.ended.id, None, [])
            self._dialling.set_aside(too_short.call)
        before = too_short.call if too_short else self._repeated(invite)
        decision = self._admission.judge(invite)
        if isinstance(decision, Dial):
            self._let_in(invite, consent.of_caller(decision, self.sound_of), before)
            return
        opened = beginnings.opened(invite, decision, self._edge_id, before)
        challenges = self._admission.challenges(invite, decision)
        self._kamailio.send(verdicts.reject(invite, decision, opened[0].id if opened else "", challenges))
        if decision.cause is not Cause.CREDENTIALS_NEEDED or not self._waits(invite, decision):
            self._refuse_call(invite, decision, opened)

    def _repeated(self, invite: messages.Invite) -> Call | None:
        """Return the call that this INVITE opened before Kamailio died; it is judged anew."""
        call = self._repeats.call_of(invite)
        if call is not None:
            self._dialling.set_aside(call)
            self._book.orphans.discard(call.id)
        return call

    def _let_in(self, invite: messages.Invite, agreed: Consent, before: Call | None) -> None:
        """Send a call on to its server, or to our own middle where something is to be said first."""
        decision = agreed.decision
        opened = beginnings.opened(invite, decision, self._edge_id, before)
        assert opened is not None  # a call that is let in has a trunk
        call, told = opened
        call = msgspec.structs.replace(call, unrecorded=agreed.unrecorded)
        if agreed.sound is None:
            self._dialling.dial(invite, call, decision)
        else:
            call = beginnings.in_the_middle(call)
            self._middle.announce(call, decision, agreed.sound)
            self._kamailio.send(verdicts.dial_middle(invite, decision, call.id, self._middle.place))
            if call.is_outbound:
                self._dialling.expect(call, decision)
            else:
                self._admission.let_in(call)
        self._book.remember(invite.id, call, told)

    def note_broken(self, message: messages.Broken) -> None:
        """Open and end a call that Kamailio has refused by itself, or count it where it is nobody's."""
        opened = self._of_broken(message)
        if opened is not None or message.is_kept:
            self._book.remember(message.id if message.is_kept else None, *(opened or (None, ())))

    def _of_broken(self, message: messages.Broken) -> tuple[Call, list[CallEvent]] | None:
        if broken.is_no_call(message):
            return None
        invite = broken.invite_of(message)
        decision = self._admission.refuse(invite, broken.fault_of(message))
        if decision.carrier is None:
            self.strangers.note(f"{invite.source}:{invite.port}", invite.transport, decision)
            return None
        if not self._broken.is_new(f"{message.source} {message.head}"):
            return None  # repeated, as nothing was answered or the answer was lost
        return beginnings.opened(invite, decision, self._edge_id)

    def _waits(self, invite: messages.Invite, decision: Reject) -> bool:
        return decision.carrier is not None and self._waiting.add(key_of(invite), Challenged(invite, decision))

    def _unanswered(self, challenged: Challenged) -> None:
        invite, decision = challenged.invite, challenged.decision
        self._refuse_call(invite, decision, beginnings.opened(invite, decision, self._edge_id))

    def _refuse_call(
        self, invite: messages.Invite, decision: Reject, opened: tuple[Call, list[CallEvent]] | None
    ) -> None:
        if opened is None:
            self.strangers.note(f"{invite.source}:{invite.port}", invite.transport, decision)
            self._book.remember(invite.id, None, [])
        else:
            is_first = self._repeats.refused(invite)
            self._book.remember(invite.id, *(opened if is_first else (None, [])))

    def _end(self, message: messages.Ended) -> None:
        """Note a call's end; one that was too short a session is over only if its caller does not ask for longer."""
        call = self._meant(message)
        is_too_short = call is not None and call.ended_at is None and message.code == _INTERVAL_TOO_SMALL
        if call is None or not is_too_short or not self._too_short.add(key_of(call), TooShort(call, message)):
            self._note_end(message, call)

    def _stays_refused(self, refused: TooShort) -> None:
        self._note_end(refused.ended, self._book.calls.get(refused.call.id))

    def _end_early(self, invite: messages.Invite) -> None:
        """End a call whose caller gave up before we had heard of it; Kamailio lets our answer to it be."""
        early = self._early.pop(invite.asked, None)
        call = self._meant(early) if early else None
        if early is not None and call is not None:
            self._note_end(early, call)

    def _note_end(self, message: messages.Ended, call: Call | None) -> None:
        if call is None:
            if message.asked and not message.record:
                while len(self._early) >= _MOST_EARLY:
                    self._early.pop(next(iter(self._early)))
                self._early[message.asked] = message
            self._book.remember(message.id, None, [])
        else:
            self._book.remember(message.id, *endings.ended(call, message))

    def _meant(self, message: messages.Ended) -> Call | None:
        """Return the call that ended: by its record, or by its transaction if it ended before it had one.

        An agent that waits for the callee of the call that it places ends the call too.
        """
        if record := messages.text(message.record):
            waits = record == half_of_agent(call_of_record(record))
            return self._book.calls.get(call_of_record(record) if waits else record)
        return next((c for c in self._book.calls.values() if message.asked and c.asked == message.asked), None)

    async def settle(self) -> None:
        """Wait until everything taken so far is on disk."""
        await self._dialling.settle()
        await self._book.settle()
