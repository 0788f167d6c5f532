"""The spool: what was acknowledged is there after kill -9, in order, once."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest
from spool_writer import AT, change
from voxpria_edge.calls.call import Bridge
from voxpria_edge.calls.spool import Change, Spool
from voxpria_routing.events import Ringing

WRITER = Path(__file__).with_name("spool_writer.py")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Spool]:
    spool = Spool(path)
    await spool.open()
    running = asyncio.create_task(spool.run())
    try:
        yield spool
    finally:
        running.cancel()
        await spool.close()


def written_until_killed(path: Path, count: int) -> list[str]:
    """Have another process write, kill it once it has named this many changes, and return all names it gave."""
    with subprocess.Popen([sys.executable, str(WRITER), str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        names = [writer.stdout.readline().decode() for _ in range(count)]
        os.kill(writer.pid, signal.SIGKILL)
        names += [line.decode() for line in writer.stdout.readlines()]
    return [name.strip() for name in names if name.endswith("\n")]


@pytest.mark.timeout(120)
async def test_every_acknowledged_change_outlives_a_kill(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "spool.sqlite", []
    for count in (1, 37, 200):
        acknowledged += written_until_killed(path, count)
    assert len(acknowledged) >= 238
    spool = Spool(path)
    calls = {call.id for call in await spool.open()}
    kept = [event.id for _, event in await spool.oldest(100_000)]
    unheard = await spool.unheard(acknowledged)
    await spool.close()
    assert set(acknowledged) <= calls
    assert set(acknowledged) <= set(kept)
    assert not unheard
    assert spool.unsent == len(kept) == len(set(kept))
    for writer in {name.rsplit("-", 1)[0] for name in kept}:
        numbers = [int(name.rsplit("-", 1)[1]) for name in kept if name.rsplit("-", 1)[0] == writer]
        assert numbers == list(range(len(numbers)))


async def test_an_event_is_kept_once_however_often_it_is_committed(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.sqlite") as spool:
        await asyncio.gather(*(spool.commit(change("one")) for _ in range(5)))
        assert [event.id for _, event in await spool.oldest(10)] == ["one"]
        assert spool.unsent == 1
        assert await spool.unheard(["one", "two"]) == {"two"}


async def test_what_was_heard_and_acknowledged_is_forgotten_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"message-{number}" for number in range(2500)]
    async with opened(tmp_path / "spool.sqlite") as spool:
        await asyncio.gather(*(spool.commit(Change(heard=name)) for name in names))
        await spool.forget_heard([])
        assert not await spool.unheard(names)
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 3600)
        await spool.commit(Change(heard="of late"))
        await spool.forget_heard(names[7:9])
        assert await spool.unheard([*names, "of late"]) == {*names[:7], *names[9:]}


async def test_what_is_reported_is_forgotten_and_what_was_refused_is_kept_aside(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.sqlite") as spool:
        for name in ("one", "two", "three"):
            await spool.commit(change(name))
        oldest = await spool.oldest(2)
        await spool.reported([place for place, _ in oldest], {"two": "no such account"})
        assert [event.id for _, event in await spool.oldest(10)] == ["three"]
        assert spool.unsent == 1
        await spool.commit(Change([Ringing(id="one", call_id="one", at=AT)]))
        assert spool.unsent == 2


async def test_what_was_refused_is_kept_up_to_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxpria_edge.calls.spool._MOST_REFUSED", 3)
    async with opened(tmp_path / "spool.sqlite") as spool:
        for name in "abcde":
            await spool.commit(change(name))
            [(place, event)] = await spool.oldest(1)
            await spool.reported([place], {event.id: "no such account"})
        with closing(sqlite3.connect(tmp_path / "spool.sqlite")) as db:
            assert [id_ for (id_,) in db.execute("SELECT id FROM dead ORDER BY rowid")] == ["c", "d", "e"]


async def test_a_forgotten_call_is_gone_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path / "spool.sqlite") as spool:
        await spool.commit(change("one"))
        await spool.commit(change("two"))
        await spool.commit(Change(calls={"one": None}))
    again = Spool(tmp_path / "spool.sqlite")
    assert [call.id for call in await again.open()] == ["two"]
    await again.close()


async def test_close_writes_what_still_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.sqlite")
    await spool.open()
    waiting = asyncio.create_task(spool.commit(change("one")))
    await asyncio.sleep(0)
    await spool.close()
    await waiting
    again = Spool(tmp_path / "spool.sqlite")
    assert [call.id for call in await again.open()] == ["one"]
    await again.close()


async def test_of_a_call_that_is_forgotten_no_key_is_left_in_any_file(tmp_path: Path) -> None:
    keys = [f"inline:{number:040}" for number in range(40)]
    async with opened(tmp_path / "spool.sqlite") as spool:
        for number, key in enumerate(keys):
            [(id_, call)] = change(f"writer-{number}").calls.items()
            assert call is not None
            bridge = Bridge(callee_sdp=f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 {key}\r\n")
            await spool.commit(Change(calls={id_: msgspec.structs.replace(call, bridge=bridge)}))
            assert _holding(tmp_path, keys[number : number + 1])
            await spool.commit(Change(calls={id_: None}))
            assert not _holding(tmp_path, keys[: number + 1])


def _holding(folder: Path, keys: list[str]) -> list[str]:
    return [path.name for path in folder.iterdir() if any(key.encode() in path.read_bytes() for key in keys)]
