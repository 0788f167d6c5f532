"""A call that the API places takes its place on the trunks that its agent is, or may yet be, called on."""

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from kamailio_words import BEGIN, NUMBER, TABLE, TRUNK, answered, base64_of, heard
from scripted import Kamailio, NoMiddle
from voxpria_edge.admission.admission import Admission
from voxpria_edge.calls import beginnings, endings
from voxpria_edge.calls.book import Book
from voxpria_edge.calls.half import Half
from voxpria_edge.calls.spool import Spool
from voxpria_edge.desk.dialling import Dialling
from voxpria_edge.proxy import messages
from voxpria_edge.trunks.resolve import guard
from voxpria_routing.decision import Dial, Explanation
from voxpria_routing.edge_api import Place
from voxpria_routing.load import account_key
from voxpria_routing.snapshot import Trunk

CALLEE = msgspec.structs.replace(TRUNK, id="trunk_callee")
STAND_IN = msgspec.structs.replace(TRUNK, id="trunk_stand_in", max_calls_per_second=1)
ACCOUNT = account_key(TRUNK.account_id, TRUNK.mode)


class Middle(NoMiddle):
    """Of which each half is known by its record."""

    def __init__(self) -> None:
        self.halves: dict[str, Half] = {}

    def half(self, record: str) -> Half | None:
        return self.halves.get(record)


def dial(carrier: Trunk, *targets: Trunk, is_outbound: bool) -> Dial:
    return Dial(
        number=NUMBER,
        carrier=carrier,
        targets=targets,
        caller=NUMBER.e164,
        called="+13035550188",
        is_outbound=is_outbound,
        explanation=Explanation(summary="", tried=()),
    )


def tried(record: str) -> messages.Tried:
    return messages.Tried(
        id=str(uuid.uuid4()),
        at=f"{BEGIN:.6f}",
        index=1,
        label=1,
        record=base64_of(record),
        cause="rejected",
        code=503,
        reason=base64_of("Service Unavailable"),
    )


async def diagnose(_: Trunk) -> str:
    return "Nobody is there."


async def test_the_trunks_that_an_agent_may_be_called_on_are_held_and_in_the_end_the_one_that_took_it(
    tmp_path: Path,
) -> None:
    spool, kamailio, middle = Spool(tmp_path / "spool.sqlite"), Kamailio(), Middle()
    await spool.open()
    book, admission = Book(spool, kamailio), Admission(lambda: TABLE)
    dialling = Dialling(book, kamailio, admission, middle, diagnose, guard(allow_private=True))
    book.on_changed, book.on_ended = dialling.count, lambda _: None
    running = asyncio.create_task(spool.run())
    order = Place(
        id="place_call_1",
        call_id="call_1",
        account_id=TRUNK.account_id,
        mode=TRUNK.mode,
        number_id=NUMBER.id,
        from_=NUMBER.e164,
        to="+13035550188",
        expires_at=datetime.now(UTC),
    )
    decision = dial(TRUNK, CALLEE, is_outbound=True)
    call, told = beginnings.placed(order, decision, "edge_1", datetime.now(UTC))
    dialling.expect(call, decision)
    await book.begin(order.id, call, told)
    assert admission.load().open_calls == {ACCOUNT: 1, TRUNK.id: 1, CALLEE.id: 1}

    to_agent = dial(CALLEE, TRUNK, STAND_IN, is_outbound=False)
    dialling.expect_agent(call.id, to_agent)
    assert admission.load().open_calls == {ACCOUNT: 1, TRUNK.id: 1, STAND_IN.id: 1, CALLEE.id: 1}
    assert STAND_IN.id not in admission.load().starts

    half = middle.halves["call_1.0"] = Half(call.id, "call_1.0", to_agent, 0)
    dialling.try_on(tried(half.record))
    assert admission.load().open_calls == {ACCOUNT: 1, STAND_IN.id: 1, CALLEE.id: 1}
    assert len(admission.load().starts[STAND_IN.id]) == 1

    following = half.next()
    assert following is not None
    middle.halves = {following.record: following}
    message = heard(answered(following.record))
    assert isinstance(message, messages.Answered)
    dialling.note_answer(message)
    assert admission.load().open_calls == {ACCOUNT: 1, STAND_IN.id: 1, CALLEE.id: 1}

    book.remember(None, *endings.lost(book.calls[call.id], datetime.now(UTC), "It is over."))
    assert admission.load().open_calls == {}
    await dialling.settle()
    await book.settle()
    running.cancel()
    await spool.close()
