"""The watch: calls that nobody ends are ended, and no others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from kamailio_words import invite
from scripted import Media
from test_desk import Office, office
from voxpria_edge.calls import Call
from voxpria_edge.rtpengine import Rtpengine
from voxpria_edge.watch import Watch

pytestmark = pytest.mark.timeout(30)


async def call_of(at: Office, *, seconds_ago: float, answered: bool = True, orphan: bool = False) -> Call:
    """A call that has been up for so long."""
    await at.hear(invite())
    call = next(call for call in at.book.open_calls if call.answered_at is None)
    began = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    call = msgspec.structs.replace(call, opened_at=began, answered_at=began if answered else None)
    at.book.calls[call.id] = call
    if orphan:
        at.book.orphans.add(call.id)
    return call


async def look(watch: Watch, call: Call, times: int = 1) -> None:
    for _ in range(times):
        await watch._look_at(call)


async def test_a_call_with_media_is_left_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        watch, call = Watch(at.book, at.hanging_up, media), await call_of(at, seconds_ago=30)
        media.relayed[call.id] = 100
        await look(watch, call, 3)
        assert at.book.open_calls
        assert not at.kamailio.hung_up


async def test_a_call_whose_media_session_is_gone_is_hung_up(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await call_of(at, seconds_ago=30)
        await look(Watch(at.book, at.hanging_up, Media()), call)
        assert at.kamailio.hung_up == [call.sip_call_id]
        assert at.book.calls[call.id].ending == "media_timeout"


async def test_a_young_call_may_have_no_media_yet(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await look(Watch(at.book, at.hanging_up, Media()), await call_of(at, seconds_ago=2))
        assert not at.kamailio.hung_up


async def test_nothing_is_concluded_while_rtpengine_is_down(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        media.is_down = True
        await look(Watch(at.book, at.hanging_up, media), await call_of(at, seconds_ago=30, orphan=True), 3)
        assert not at.kamailio.hung_up
        assert at.book.open_calls


async def test_a_call_that_was_ringing_when_kamailio_died_is_lost(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        watch, early = (
            Watch(at.book, at.hanging_up, Media()),
            await call_of(at, seconds_ago=20, answered=False, orphan=True),
        )
        await look(watch, early)
        assert at.book.open_calls, "its INVITE may come once more"
        await look(watch, msgspec.structs.replace(early, opened_at=early.opened_at - timedelta(seconds=20)))
        await at.desk.settle()
        assert not at.book.open_calls
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]


async def test_a_ringing_call_that_kamailio_knows_rings_on(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await look(Watch(at.book, at.hanging_up, Media()), await call_of(at, seconds_ago=50, answered=False))
        assert at.book.open_calls


async def test_an_orphan_lives_as_long_as_its_media_flows(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        watch, call = Watch(at.book, at.hanging_up, media), await call_of(at, seconds_ago=30, orphan=True)
        for packets in (100, 200, 300):
            media.relayed[call.id] = packets
            await look(watch, call)
            assert at.book.open_calls
        await look(watch, call)
        assert not at.book.open_calls


async def test_an_orphan_past_its_time_is_lost_even_with_media(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        call = await call_of(at, seconds_ago=120 + 11, orphan=True)
        media.relayed[call.id] = 1
        await look(Watch(at.book, at.hanging_up, media), call)
        assert not at.book.open_calls


async def test_no_rtpengine_at_all_is_no_answer() -> None:
    client = Rtpengine("127.0.0.1", 9)
    await client.open()
    try:
        assert await client.is_up() is False
    finally:
        client.close()
