"""The watch: calls that nobody ends are ended, and no others."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import kamailio_words as words
import msgspec
import pytest
from kamailio_words import heard, invite
from scripted import Media
from test_desk import Office, office
from voxpria_edge.calls import legs
from voxpria_edge.calls.call import Call
from voxpria_edge.desk.watch import Watch
from voxpria_edge.media.rtpengine import Rtpengine

pytestmark = pytest.mark.timeout(30)


async def call_of(at: Office, *, seconds_ago: float, answered: bool = True, orphan: bool = False) -> Call:
    """A call that has been up for so long."""
    await at.hear(invite())
    call = next(call for call in at.book.open_calls if call.answered_at is None)
    began = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    dialogs = {"to_agent": legs.to_agent(heard(words.answered(call.id)))} if answered else {}
    call = msgspec.structs.replace(call, opened_at=began, answered_at=began if answered else None, **dialogs)
    at.book.calls[call.id] = call
    if orphan:
        at.book.orphans.add(call.id)
    return call


async def look(watch: Watch, times: int = 1) -> None:
    for _ in range(times):
        watch.end_overdue()
        await watch.end_silent()
        await watch.settle()


async def test_a_call_with_media_is_left_alone(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        watch, call = Watch(at.book, at.hanging_up, media), await call_of(at, seconds_ago=30)
        media.sessions[call.id] = {}
        await look(watch, 3)
        assert at.book.open_calls
        assert not at.kamailio.hung_up


async def test_a_call_whose_media_session_is_gone_is_hung_up(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        call = await call_of(at, seconds_ago=30)
        await look(Watch(at.book, at.hanging_up, Media()))
        assert at.kamailio.hung_up == [call.sip_call_id]
        assert at.book.calls[call.id].ending == "media_timeout"


async def test_a_young_call_may_have_no_media_yet(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await call_of(at, seconds_ago=2)
        await look(Watch(at.book, at.hanging_up, Media()))
        assert not at.kamailio.hung_up


async def test_nothing_is_concluded_while_rtpengine_is_down(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media = Media()
        media.is_down = True
        await call_of(at, seconds_ago=30, orphan=True)
        await look(Watch(at.book, at.hanging_up, media), 3)
        assert not at.kamailio.hung_up
        assert at.book.open_calls


async def test_a_call_that_was_ringing_when_kamailio_died_is_lost(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        early = await call_of(at, seconds_ago=20, answered=False, orphan=True)
        await look(Watch(at.book, at.hanging_up, Media()))
        assert at.book.open_calls, "its INVITE may come once more"
        at.book.calls[early.id] = msgspec.structs.replace(early, opened_at=early.opened_at - timedelta(seconds=20))
        await look(Watch(at.book, at.hanging_up, Media()))
        await at.desk.settle()
        assert not at.book.open_calls
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]


async def test_a_ringing_call_that_kamailio_knows_rings_on(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        await call_of(at, seconds_ago=50, answered=False)
        await look(Watch(at.book, at.hanging_up, Media()))
        assert at.book.open_calls


async def test_a_call_that_kamailio_forgot_is_hung_up_on_by_us_when_its_media_is_gone(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        at.kamailio.knows_calls = False
        await call_of(at, seconds_ago=30, orphan=True)
        await look(Watch(at.book, at.hanging_up, Media()))
        await at.desk.settle()
        assert not at.book.open_calls
        assert {request.method for request in at.kamailio.requests} == {"BYE"}
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]


@pytest.mark.parametrize(("orphan", "overdue"), [(True, 1), (False, 11)])
async def test_a_call_past_its_time_is_ended_whatever_its_media(tmp_path: Path, *, orphan: bool, overdue: int) -> None:
    async with office(tmp_path) as at:
        at.kamailio.knows_calls = not orphan
        media, call = Media(), await call_of(at, seconds_ago=120 + overdue, orphan=orphan)
        media.sessions[call.id] = {}
        await look(Watch(at.book, at.hanging_up, media))
        await at.desk.settle()
        assert at.book.calls[call.id].ending == "max_duration"
        assert bool(at.kamailio.hung_up) is not orphan
        assert bool(at.book.open_calls) is not orphan


@pytest.mark.parametrize(("refreshed", "ending"), [(None, "session_expired"), (100, None), (0, None)])
async def test_a_session_that_nobody_refreshes_is_ended_whatever_its_media(
    tmp_path: Path, refreshed: int | None, ending: str | None
) -> None:
    """RFC 4028: refreshed once more for 100 seconds, or for as long as it will."""
    async with office(tmp_path) as at:
        media, call = Media(), await call_of(at, seconds_ago=60, answered=False)
        media.sessions[call.id] = {}
        answered_at = datetime.now(UTC).timestamp() - 60
        await at.hear(words.answered(call.id, answered_at, expires=40))
        if refreshed is not None:
            again = words.progress("moved", call.id, answered_at + 20)
            await at.hear(again | {"caller": "", "agent": "", "expires": refreshed})
        await look(Watch(at.book, at.hanging_up, media))
        assert at.book.calls[call.id].ending == ending


async def test_kamailio_has_time_to_end_a_call_itself(tmp_path: Path) -> None:
    async with office(tmp_path) as at:
        media, call = Media(), await call_of(at, seconds_ago=120 + 2)
        media.sessions[call.id] = {}
        await look(Watch(at.book, at.hanging_up, media))
        assert at.book.calls[call.id].ending is None


async def test_no_rtpengine_at_all_is_no_answer() -> None:
    client = Rtpengine("127.0.0.1", 9)
    await client.open()
    try:
        assert await client.is_up() is False
    finally:
        client.close()
