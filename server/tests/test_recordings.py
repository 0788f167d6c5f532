"""Recordings: taken whole, given by signed links, in ranges, and waited for while they are on their way."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from voxpria_server.calls.links import RecordingLinks, load_links
from voxpria_server.errors import ForbiddenError
from voxpria_server.kit.ids import new_id
from voxpria_server.kit.ranges import UnsatisfiableError, parse_range

from server.tests.edge_client import Story, connect

MP3 = os.urandom(300_000)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def edge(api):
    return await connect(api)


@pytest.fixture
async def outsider(api):
    """Somebody with a link, and no key."""
    return await api.client(None)


async def link_of(client, story) -> str | None:
    url = (await client.get(f"/v1/calls/{story.id}")).json()["recording_url"]
    return url and url.removeprefix(url.split("/v1/")[0])


@pytest.fixture
async def recorded(client, edge):
    """A link to a recording that is there."""
    story = Story()
    await edge.send(*story.completed(recording=True))
    assert (await edge.upload(story.id, MP3)).status_code == 204
    await edge.send(story.recorded())
    return await link_of(client, story)


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_the_link_gives_the_recording(outsider, recorded):
    answer = await outsider.get(recorded)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert answer.headers["content-length"] == str(len(MP3))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.content == MP3
    head = await outsider.head(recorded)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(MP3)), b"")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("0-99", 0, 100), ("299990-", 299_990, 300_000), ("-10", 299_990, 300_000), ("5-999999999", 5, 300_000)],
)
async def test_ranges(outsider, recorded, asked, start, end):
    answer = await outsider.get(recorded, headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, MP3[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/300000"
    assert answer.headers["content-length"] == str(end - start)


async def test_a_range_beyond_the_end(outsider, recorded):
    answer = await outsider.get(recorded, headers={"Range": "bytes=300000-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */300000")


@pytest.mark.parametrize("header", ["bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-", "nonsense"])
async def test_other_ranges_are_ignored(outsider, recorded, header):
    answer = await outsider.get(recorded, headers={"Range": header})
    assert (answer.status_code, len(answer.content)) == (200, len(MP3))


async def test_a_changed_link_opens_nothing(outsider, recorded):
    parts = urlsplit(recorded)
    query = dict(parse_qsl(parts.query))
    other = f"/v1/recordings/{new_id('call')}.mp3"
    later, wrong = query | {"expires": str(int(query["expires"]) + 1)}, query | {"signature": "0" * 64}
    for path, changed in (
        (other, query),
        (parts.path, later),
        (parts.path, wrong),
        (parts.path, query | {"signature": "é"}),
    ):
        assert code(await outsider.get(path, params=changed)) == (403, "invalid_signature")
    assert (await outsider.get(parts.path)).status_code == 400


@pytest.mark.unit
def test_a_link_expires_and_outlives_a_change_of_the_key():
    call_id = new_id("call")
    before, after = RecordingLinks([b"old"], "http://x", 60), RecordingLinks([b"new", b"old"], "http://x", 60)
    query = dict(parse_qsl(urlsplit(before.make(call_id, NOW)).query))
    given = (call_id, int(query["expires"]), query["signature"])
    after.check(*given, NOW + timedelta(seconds=60))
    with pytest.raises(ForbiddenError) as error:
        after.check(*given, NOW + timedelta(seconds=61))
    assert error.value.code == "link_expired"
    with pytest.raises(ForbiddenError):
        RecordingLinks([b"new"], "http://x", 60).check(*given, NOW)


def test_the_links_key_is_derived_not_the_master_key_itself(settings):
    links = load_links(settings.master_key_file, "http://x", 60)
    (key,) = links._keys
    assert len(key) == 32
    assert key.hex() not in settings.master_key_file.read_text()


async def test_a_recording_that_is_on_its_way_is_waited_for(client, edge, outsider):
    story = Story()
    await edge.send(*story.completed(recording=True))
    waiting = asyncio.create_task(outsider.get(await link_of(client, story)))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await edge.upload(story.id, MP3)
    async with asyncio.timeout(3):
        assert (await waiting).content == MP3


async def test_a_recording_that_fails_while_waited_for(client, edge, outsider):
    story = Story()
    await edge.send(*story.completed(recording=True))
    link = await link_of(client, story)
    waiting = asyncio.create_task(outsider.get(link))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    await edge.send(story.recording_failed())
    async with asyncio.timeout(3):
        answer = await waiting
    assert code(answer) == (404, "recording_not_found")
    assert answer.json()["error"]["details"] == {"recording": "failed"}
    assert await link_of(client, story) is None


async def test_a_recording_that_never_comes(client, edge, outsider, monkeypatch):
    monkeypatch.setattr("voxpria_server.calls.endpoints._ARRIVAL_SECONDS", 0.3)
    story = Story()
    await edge.send(*story.completed(recording=True))
    assert code(await outsider.get(await link_of(client, story))) == (404, "recording_not_found")


async def test_no_link_before_the_end_or_without_a_recording(client, edge):
    talking, unrecorded, unanswered = Story(), Story(), Story()
    await edge.send(talking.invited(), talking.answered(recording=True))
    await edge.send(*unrecorded.completed(), *unanswered.failed())
    assert [await link_of(client, story) for story in (talking, unrecorded, unanswered)] == [None] * 3


async def test_the_ended_event_has_a_link_that_works(client, edge, outsider):
    story = Story()
    await edge.send(*story.completed(recording=True))
    await edge.upload(story.id, MP3)
    (event,) = (await client.get("/v1/events?type=call.ended")).json()["data"]
    url = event["data"]["recording_url"]
    assert (await outsider.get(url.removeprefix(url.split("/v1/")[0]))).content == MP3


async def test_uploads_may_be_repeated_and_are_bounded(api, client, edge, outsider, settings):
    store = api.app.state.recordings
    story = Story()
    await edge.send(*story.completed(recording=True))
    for content in (b"first", MP3):
        assert (await edge.upload(story.id, content)).status_code == 204
    store._max_bytes = len(MP3) - 1
    assert code(await edge.upload(story.id, MP3)) == (413, "payload_too_large")
    assert code(await edge.upload(story.id, b"")) == (400, "invalid_parameter")
    assert (await outsider.get(await link_of(client, story))).content == MP3, "what was there stays whole"
    files = [path.name for path in (settings.data_dir / "recordings").rglob("*") if path.is_file()]
    assert files == [f"{story.id}.mp3"]


async def test_an_upload_that_breaks_off_leaves_nothing(api, edge, settings):
    async def breaking():
        yield MP3
        raise ConnectionResetError

    call_id = new_id("call")
    with pytest.raises(ConnectionResetError):
        await api.app.state.recordings.put(call_id, breaking())
    assert await api.app.state.recordings.size(call_id) is None
    assert [path for path in (settings.data_dir / "recordings").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("call_id", ["nonsense", "..", "call_x", "phone_" + "0" * 26])
async def test_only_calls_have_recordings(edge, call_id):
    answer = await edge.client.put(f"/edge/v1/calls/{call_id}/recording", content=MP3)
    assert answer.status_code == 404


@pytest.mark.unit
@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        (None, 10, None),
        ("bytes=0-", 10, (0, 10)),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=9-9", 10, (9, 10)),
        ("bytes= 2 - 4 ", 10, (2, 5)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=4-2", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=" + "9" * 30 + "-", 10, None),
    ],
)
def test_parse_range(header, size, expected):
    assert parse_range(header, size) == expected


@pytest.mark.unit
@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=-5", 0), ("bytes=0-", 0)])
def test_parse_range_outside(header, size):
    with pytest.raises(UnsatisfiableError):
        parse_range(header, size)
