"""The desk: each message acted on once, remembered, acknowledged; catching up after any restart."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from kamailio_words import BEGIN, TABLE, answered, base64_of, ended, heard, invite, progress
from scripted import Kamailio, NoMiddle
from voxpria_edge.admission.admission import Admission
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.call import Call
from voxpria_edge.calls.spool import Change, Spool
from voxpria_edge.desk import hanging_up
from voxpria_edge.desk.desk import Desk
from voxpria_edge.desk.dialling import Dialling
from voxpria_edge.desk.hanging_up import HangingUp
from voxpria_edge.proxy import messages
from voxpria_edge.trunks.resolve import guard
from voxpria_routing.snapshot import Trunk


class Office:
    """A desk with a real spool, and Kamailio scripted."""

    def __init__(self, spool: Spool) -> None:
        self.spool, self.kamailio, self.finished = spool, Kamailio(), list[Call]()
        self.book, admission, middle = Book(spool, self.kamailio), Admission(lambda: TABLE), NoMiddle()
        dialling = Dialling(self.book, self.kamailio, admission, middle, self.diagnose, guard(allow_private=True))
        self.hanging_up = HangingUp(self.book, self.kamailio, middle, lambda: TABLE)
        self.desk = Desk("edge_1", self.book, self.kamailio, admission, dialling, self.hanging_up, middle)
        self.book.on_changed = dialling.count
        self.book.is_current = True
        self.book.on_ended = self.finished.append

    @staticmethod
    async def diagnose(trunk: Trunk) -> str:
        return f"Nobody is at {trunk.server}."

    async def hear(self, *said: dict[str, object]) -> None:
        for each in said:
            await self.desk.on_message(heard(each))
        await self.desk.settle()

    async def reconnect(self, *said: dict[str, object], live: tuple[str, ...] = ()) -> None:
        """Kamailio is there again, says all this, which calls it has, and that it was all."""
        await self.desk.on_connected()
        await self.hear(*said, *({"kind": "live", "record": id_} for id_ in live), {"kind": "resent"})

    async def told(self) -> list[tuple[str, str]]:
        """Kind and call of everything to be reported, in order."""
        return [(type(event).__name__, event.call_id) for _, event in await self.spool.oldest(1000)]

    def answers(self) -> list[messages.Command]:
        return [sent for sent in self.kamailio.sent if isinstance(sent, messages.Dial | messages.Reject)]


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    spool = Spool(folder / "spool.sqlite")
    kept = await spool.open()
    made = Office(spool)
    made.book.take_over(kept)
    work = [asyncio.create_task(each) for each in (spool.run(), made.book.acknowledge())]
    try:
        yield made
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await spool.close()


async def until(probe: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not probe():
            await asyncio.sleep(0.01)


async def opened(at: Office) -> Call:
    await at.hear(invite())
    return at.book.open_calls[-1]


async def test_a_call_from_question_to_end(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        question = invite()
        await at.hear(question)
        (call,) = at.book.open_calls
        rest = [progress("ringing", call.id), progress("answered", call.id, BEGIN + 2), ended(call.id)]
        await at.hear(*rest)
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ringing", "Answered", "Ended"]
        assert [done.id for done in at.finished] == [call.id]
        await until(lambda: len(at.kamailio.acknowledged) == 4)
        assert at.kamailio.acknowledged == [said["id"] for said in (question, *rest)]
        assert not at.book.open_calls


async def test_nothing_is_acknowledged_before_it_is_on_disk(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        store = at.spool._store

        def look(changes: object) -> int:
            assert not at.kamailio.acknowledged
            return store(changes)

        at.spool._store = look
        await at.hear(invite())
        await until(lambda: at.kamailio.acknowledged)


async def test_a_refused_call_is_told_and_done_with(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.hear(invite(to="+15555551239"))
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]
        assert not at.book.calls
        assert not at.finished
        (answer,) = at.answers()
        assert isinstance(answer, messages.Reject)


async def test_what_was_missed_is_taken_in_the_order_of_its_times(tmp_path: Path) -> None:
    question = invite()
    async with office(tmp_path) as at:
        await at.hear(question)
        (call,) = at.book.open_calls
    rest = [ended(call.id, BEGIN + 9), progress("answered", call.id, BEGIN + 2), progress("ringing", call.id)]
    async with office(tmp_path) as at:
        assert [kept.id for kept in at.book.open_calls] == [call.id]
        await at.reconnect(*rest)
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ringing", "Answered", "Ended"]
        (done,) = at.finished
        assert done.answered_at is not None


async def test_what_was_heard_before_changes_nothing_when_it_is_said_again(tmp_path: Path) -> None:
    question = invite()
    async with office(tmp_path) as at:
        await at.hear(question)
        (call,) = at.book.open_calls
        said = [question, progress("answered", call.id), ended(call.id)]
        await at.hear(*said[1:])
        before = await at.told()
    async with office(tmp_path) as at:
        await at.reconnect(*said, *said)
        assert await at.told() == before
        assert not at.answers()
        assert not at.finished
        await until(lambda: len(at.kamailio.acknowledged) == len(said))


async def test_what_kamailio_did_not_hear_acknowledged_is_remembered_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path) as at:
        at.kamailio.is_deaf = True
        question = invite()
        await at.hear(question)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        await at.book.forget_heard()
        assert not await at.book.is_unheard(str(question["id"]))
        at.kamailio.is_deaf = False
        (call,) = at.book.open_calls
        await at.reconnect(question, live=(call.id,))
        await until(lambda: question["id"] in at.kamailio.acknowledged)
        await at.book.forget_heard()
        assert await at.book.is_unheard(str(question["id"]))
        assert [kind for kind, _ in await at.told()] == ["Invited"]


async def test_a_message_that_is_said_live_and_again_counts_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        question = invite()
        await at.hear(question)
        (call,) = at.book.open_calls
        answered = progress("answered", call.id)
        for said in (question, answered):
            await at.desk.on_message(heard(said))
        await at.reconnect(question, answered, live=(call.id,))
        assert [kind for kind, _ in await at.told()] == ["Invited", "Answered"]
        assert at.book.calls[call.id].answered_at is not None


async def test_a_call_that_a_restarted_kamailio_does_not_know_may_pass_and_is_watched(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        known, unknown = await opened(at), None
        await at.hear(invite())
        unknown = next(call for call in at.book.open_calls if call.id != known.id)
        await at.reconnect(live=(known.id,))
        assert at.book.orphans == {unknown.id}
        assert [sent.record for sent in at.kamailio.sent if isinstance(sent, messages.Allow)] == [unknown.id]
        await at.hear(ended(unknown.id))
        assert not at.book.orphans


async def test_a_call_that_is_let_in_while_catching_up_is_no_orphan(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await at.reconnect(invite())
        assert len(at.book.open_calls) == 1
        assert not at.book.orphans


async def test_a_call_that_kamailio_tells_of_is_no_orphan_any_more(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.reconnect()
        assert at.book.orphans == {call.id}
        await at.hear(progress("ringing", call.id))
        assert not at.book.orphans


async def test_a_call_that_ended_before_it_had_a_record_is_known_by_its_transaction(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(ended("", asked=call.asked, cause="canceled", code=487))
        assert not at.book.open_calls
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]


async def test_a_call_whose_end_is_told_before_its_invite_is_over(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        question = invite()
        transaction = f"{question['index']}:{question['label']}"
        await at.hear(ended("", asked=transaction, cause="canceled", code=487), question)
        assert not at.book.open_calls
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]
        await at.hear(invite(index=1, label=5))
        assert len(at.book.open_calls) == 1


async def test_messages_of_unknown_calls_are_acknowledged_and_change_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        said = [progress("ringing", "call_x"), progress("answered", "call_x"), ended("call_x"), ended("", asked="")]
        await at.hear(*said)
        assert not await at.told()
        await until(lambda: len(at.kamailio.acknowledged) == len(said))


async def test_an_invite_of_our_last_run_is_nobodys_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoMiddle, "is_own", lambda _self, _invite: True)
    async with office(tmp_path) as at:
        await at.hear(invite())
        (answer,) = at.answers()
        assert isinstance(answer, messages.Reject)
        assert (answer.code, await at.told(), at.book.calls) == (503, [], {})


async def test_a_lost_call_ends_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        at.book.lose(call, "It was lost.")
        await at.hear(ended(call.id))
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]
        assert len(at.finished) == 1


async def test_a_call_from_before_kamailios_restart_may_pass_no_more_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hanging_up, "_PASSING_SECONDS", 0)
    async with office(tmp_path) as at:
        at.book.on_over = at.hanging_up.done
        known, lost = await opened(at), await opened(at)
        await at.reconnect(live=(known.id,))
        at.book.lose(lost, "Nobody knows it any more.")
        at.book.lose(known, "Nobody knows it any more.")
        await at.desk.settle()
        await until(lambda: at.kamailio.forgotten == [lost.id])


async def test_a_call_that_is_over_is_not_kept_again_by_whoever_says_so_late(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(ended(call.id))
        (over,) = at.finished
        at.book.remember(None, over, [])
        await at.spool.commit(Change(calls={call.id: None}))
        at.book.forget(call.id)
        at.book.remember(None, over, [])
        await at.desk.settle()
        assert at.finished == [over]
    async with office(tmp_path) as at:
        assert at.book.calls == {}


async def test_a_call_that_has_ended_meanwhile_is_not_opened_again_by_a_hang_up(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(progress("answered", call.id), ended(call.id))
        await at.hanging_up.hang_up(call.id, "media_timeout")
        assert not at.book.open_calls
        assert not at.kamailio.hung_up


async def test_the_first_reason_to_hang_up_is_the_reason(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(progress("answered", call.id))
        await at.hanging_up.hang_up(call.id, "hangup", by="api")
        await at.hanging_up.hang_up(call.id, "max_duration")
        assert (at.book.calls[call.id].ending, at.book.calls[call.id].ended_by) == ("hangup", "api")


async def test_what_kamailio_does_not_know_is_ended_by_us_the_second_time_that_it_is_asked(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(answered(call.id))
        at.kamailio.knows_calls = False
        await at.hanging_up.hang_up(call.id, "hangup", by="api")
        assert at.book.open_calls
        await at.hanging_up.hang_up(call.id, "hangup", by="api")
        await at.desk.settle()
        assert not at.book.open_calls
        assert [request.method for request in at.kamailio.requests] == ["BYE", "BYE"]
        assert at.kamailio.forgotten == [call.id]


async def test_nothing_is_ended_by_us_before_a_restarted_kamailio_was_heard(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        await at.hear(answered(call.id))
        at.kamailio.knows_calls = False
        at.desk.on_gone()
        for _ in range(2):
            await at.hanging_up.hang_up(call.id, "hangup", by="api")
        assert at.book.open_calls
        await at.reconnect()
        await at.hanging_up.hang_up(call.id, "hangup", by="api")
        assert not at.book.open_calls


async def test_our_own_hang_up_keeps_its_reason_and_may_fail(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await opened(at)
        at.kamailio.is_deaf = True
        await at.hanging_up.hang_up(call.id, "media_timeout")
        at.kamailio.is_deaf = False
        await at.hanging_up.hang_up(call.id, "media_timeout")
        assert at.kamailio.hung_up == [call.sip_call_id]
        assert at.book.calls[call.id].ending == "media_timeout"


async def test_an_invite_that_comes_once_more_since_kamailio_died_goes_on_with_its_call(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        question = invite(branch=base64_of("z9hG4bK1"))
        await at.hear(question)
        (call,) = at.book.open_calls
        again = {**question, "id": str(uuid.uuid4()), "label": 999_999, "at": f"{BEGIN + 3:.6f}"}
        await at.reconnect(again)
        (same,) = at.book.open_calls
        assert (same.id, same.opened_at) == (call.id, call.opened_at)
        assert same.asked != call.asked
        assert not at.book.orphans
        assert len([sent for sent in at.answers() if isinstance(sent, messages.Dial)]) == 2
        assert [kind for kind, _ in await at.told()] == ["Invited"]


@pytest.mark.parametrize(
    "other", [{"source": "203.0.113.2"}, {"branch": base64_of("z9hG4bK2")}, {"cseq": 8}, {"from_tag": base64_of("b")}]
)
async def test_another_invite_is_another_call(tmp_path: Path, other: dict[str, object]) -> None:
    async with office(tmp_path) as at:
        question = invite(branch=base64_of("z9hG4bK1"), cseq=7)
        await at.hear(question)
        again = {**question, "id": str(uuid.uuid4()), "label": 999_999, "at": f"{BEGIN + 3:.6f}", **other}
        await at.reconnect(again)
        assert len(at.book.open_calls) == 2


async def test_an_invite_is_refused_as_often_as_it_comes_and_recorded_once(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        question = invite(to="+15555551239", branch=base64_of("z9hG4bK1"))
        await at.hear(question, {**question, "id": str(uuid.uuid4())})
        assert len(at.answers()) == 2
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]
        await until(lambda: len(at.kamailio.acknowledged) == 2)
