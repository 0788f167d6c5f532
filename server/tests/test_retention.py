"""What is kept of calls, and for how long: files go when their time is over, records say so, all else stays."""

import asyncio
import gzip
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing.trace import Trace
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.ids import made_at, new_id
from voxpria_server.kit.jobs import defer

from server.tests.edge_client import Story, connect

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def id_from(moment: datetime) -> str:
    """An id as it was made then."""
    number = (moment - _EPOCH) // timedelta(milliseconds=1) << 80 | 7 << 76 | 2 << 62 | 12345
    return "call_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


@pytest.fixture
async def edge(api):
    return await connect(api)


async def recorded(edge, days_ago: float) -> Story:
    """A call of so many days ago, with a recording and a trace."""
    story = Story(utc_now() - timedelta(days=days_ago))
    story.id = id_from(story.start)
    await edge.send(*story.completed(recording=True))
    assert (await edge.upload(story.id, b"mp3" * 100)).status_code == 204
    trace = gzip.compress(msgspec.json.encode(Trace(call_id=story.id, messages=())))
    answer = await edge.client.put(f"/edge/v1/calls/{story.id}/trace?edge_id=edge_1", content=trace)
    assert answer.status_code == 204
    await edge.send(story.recorded())
    return story


async def until(probe, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await probe():
            await asyncio.sleep(0.05)


async def kept(settings, story: Story) -> set[str]:
    return {path.name.removeprefix(story.id) for path in (settings.data_dir / "recordings").glob(f"*/{story.id}*")}


async def run(api) -> None:
    async with api.database.transaction() as conn:
        await defer(conn, "calls:retain", {"timestamp": 0}, queue="maintenance")


async def test_what_is_too_old_goes_and_its_record_says_so(api, client, edge, settings):
    young, older, oldest = [await recorded(edge, days) for days in (29, 31, 91)]
    link = (await client.get(f"/v1/calls/{oldest.id}")).json()["recording_url"]
    assert link
    await run(api)
    await until(lambda: _is_left(settings, older, {".mp3"}))
    assert await kept(settings, oldest) == set()
    assert await kept(settings, young) == {".mp3", ".trace.gz"}
    call = (await client.get(f"/v1/calls/{oldest.id}")).json()
    assert call["recording_url"] is None
    assert call["status"] == "completed"
    assert call["events"][-1]["type"] == "recording_deleted"
    answer = await client.get("/v1/" + link.partition("/v1/")[2])
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "recording_not_found")
    assert (await client.get(f"/v1/calls/{young.id}")).json()["recording_url"]
    await run(api)


async def _is_left(settings, story: Story, kinds: set[str]) -> bool:
    return await kept(settings, story) == kinds


@pytest.mark.unit
@given(st.datetimes(datetime(1971, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_an_id_tells_when_it_was_made(moment):
    assert abs(made_at(id_from(moment)) - moment) <= timedelta(milliseconds=2)


@pytest.mark.unit
def test_new_ids_are_of_now_and_a_cut_one_of_its_first_moment():
    id_ = new_id("call")
    assert abs(made_at(id_) - utc_now()) < timedelta(seconds=60)
    assert timedelta(0) <= made_at(id_) - made_at(id_[: len("call_") + 5]) < timedelta(hours=10)
