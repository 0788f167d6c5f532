"""Ends have a deadline, even where a task swallows its cancellation."""

import asyncio
import subprocess
import sys

import pytest
from voxpria_server.kit.ending import close_all, end_task
from voxpria_server.kit.jobs import Blueprint, Worker, create_app, defer

LONG = 60


class Stubborn:
    """Work that goes on however often it is cancelled, until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go, self.cancellations = asyncio.Event(), asyncio.Event(), 0

    async def work(self) -> None:
        self.begun.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                self.cancellations += 1


@pytest.mark.unit
async def test_a_task_that_swallows_its_cancellation_is_left_behind():
    stubborn = Stubborn()
    task = asyncio.create_task(stubborn.work())
    await stubborn.begun.wait()
    async with asyncio.timeout(LONG):
        assert await end_task(task, 0.05) is False
    assert stubborn.cancellations == 2
    stubborn.let_go.set()
    async with asyncio.timeout(LONG):
        await task


@pytest.mark.unit
async def test_what_closes_late_or_fails_keeps_nothing_else_open():
    stubborn, closed = Stubborn(), asyncio.Event()

    async def fail() -> None:
        raise ConnectionError

    async def close() -> None:
        closed.set()

    async with asyncio.timeout(LONG):
        await close_all(0.05, stubborn=stubborn.work(), failing=fail(), other=close())
    assert closed.is_set()
    stubborn.let_go.set()


async def test_a_worker_stops_in_time_though_its_job_does_not(database):
    blueprint, stubborn = Blueprint(), Stubborn()

    @blueprint.task(name="t:stubborn")
    async def job() -> None:
        await stubborn.work()

    worker = Worker(lambda: create_app(database.url, [blueprint]), {})
    worker.start()
    async with database.transaction() as connection:
        await defer(connection, "t:stubborn", {}, queue="q")
    async with asyncio.timeout(LONG):
        await stubborn.begun.wait()
        await worker.stop()
    assert stubborn.cancellations
    assert worker.down_reason == "stopped"
    stubborn.let_go.set()


def test_a_process_whose_event_loop_can_not_close_is_gone_in_time():
    program = """
import asyncio
from voxpria_server.kit.ending import end_process_within

async def hang():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    asyncio.create_task(hang())
    await asyncio.sleep(0)
    end_process_within(0.2)

asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=LONG, check=False).returncode == 1
