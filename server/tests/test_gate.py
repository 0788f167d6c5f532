"""Requests that are counted together each get a place of their own, or what each would have met alone."""

import asyncio
from collections.abc import Callable

import pytest
from voxpria_server.auth import queries
from voxpria_server.auth.gate import Gate

pytestmark = pytest.mark.unit


class Counter:
    """Stands where the database's statement does; each count waits until it is let go."""

    def __init__(self) -> None:
        self.used, self.counts = 0, []
        self.let_go = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, _database, secret, count, **_options):
        self.counts.append((secret, count))
        await self.let_go.wait()
        if self.error is not None:
            raise self.error
        if secret == b"unknown":
            return None
        self.used += count
        return {"used": self.used}


@pytest.fixture
def counter(monkeypatch) -> Counter:
    counter = Counter()
    monkeypatch.setattr(queries, "count_requests", counter)
    return counter


@pytest.fixture
def gate() -> Gate:
    return Gate(None, requests_per_hour=10, imports_per_minute=10)


def enter(gate: Gate, secret: bytes = b"key", address: str = "127.0.0.1") -> asyncio.Task:
    return asyncio.create_task(gate.enter(secret, address, counts_imports=False))


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not probe():
            await asyncio.sleep(0)


async def test_those_who_come_while_one_is_counted_are_counted_together(gate, counter):
    first = enter(gate)
    await until(lambda: len(counter.counts) == 1)
    entering = [first, *(enter(gate) for _ in range(7))]
    counter.let_go.set()
    places = await asyncio.gather(*entering)
    assert [used for _, used in places] == list(range(1, 9))
    assert [count for _, count in counter.counts] == [1, 7]
    assert gate._together._waiting == {}


async def test_those_who_come_at_the_same_moment_are_counted_together(gate, counter):
    counter.let_go.set()
    places = await asyncio.gather(*(enter(gate) for _ in range(8)))
    assert [used for _, used in places] == list(range(1, 9))
    assert [count for _, count in counter.counts] == [8]


async def test_each_key_and_address_is_counted_for_itself(gate, counter):
    counter.let_go.set()
    await asyncio.gather(enter(gate), enter(gate, b"other"), enter(gate, address="127.0.0.2"))
    assert [count for _, count in counter.counts] == [1, 1, 1]


async def test_an_unknown_key_lets_none_of_them_in(gate, counter):
    entering = [enter(gate, b"unknown") for _ in range(3)]
    counter.let_go.set()
    assert await asyncio.gather(*entering) == [None, None, None]


async def test_a_failure_is_everybodys_and_the_next_is_counted_again(gate, counter):
    counter.error = OSError("away")
    counter.let_go.set()
    found = await asyncio.gather(*(enter(gate) for _ in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [OSError] * 3
    counter.error = None
    assert await enter(gate) == ({"used": 1}, 1)


async def test_who_goes_away_leaves_the_others_their_places(gate, counter):
    first = enter(gate)
    await until(lambda: len(counter.counts) == 1)
    gone, last = enter(gate), enter(gate)
    await asyncio.sleep(0)  # both have entered
    first.cancel()
    gone.cancel()
    counter.let_go.set()
    assert (await last)[1] == 3
    assert [count for _, count in counter.counts] == [1, 2]
    assert gate._together._waiting == {}
