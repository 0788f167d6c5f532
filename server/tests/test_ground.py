"""The ground holds: schema, transactions, notifications, jobs."""

import asyncio

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from voxpria_server.kit.db import Database, metadata
from voxpria_server.kit.jobs import Blueprint, Retry, Worker, create_app, defer
from voxpria_server.migrations import migrate


def test_migrations_make_what_the_tables_say(database_url):
    engine = sa.create_engine(sa.make_url(database_url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or not name.startswith("procrastinate")},
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrating_again_does_nothing(database_url):
    assert migrate(database_url) is False


async def test_migrations_started_together_take_turns(own_cluster):
    url = own_cluster.url("postgres")
    done = await asyncio.gather(*(asyncio.to_thread(migrate, url) for _ in range(3)))
    assert sorted(done) == [False, False, True]


async def _run_worker(database: Database, blueprint: Blueprint, parts: dict) -> Worker:
    worker = Worker(lambda: create_app(database.url, [blueprint]), parts)
    worker.start()
    return worker


async def _defer_and_fail(database: Database) -> None:
    async with database.transaction() as connection:
        await defer(connection, "t:note", {"text": "rolled back"}, queue="q")
        raise ZeroDivisionError


async def test_a_job_runs_only_if_its_transaction_commits(database):
    blueprint, ran = Blueprint(), asyncio.Queue()

    @blueprint.task(name="t:note", pass_context=True)
    async def note(context, text):
        await context.additional_context["ran"].put(text)

    worker = await _run_worker(database, blueprint, {"ran": ran})
    try:
        with pytest.raises(ZeroDivisionError):
            await _defer_and_fail(database)
        async with database.transaction() as connection:
            await defer(connection, "t:note", {"text": "kept"}, queue="q")
        async with asyncio.timeout(15):
            assert await ran.get() == "kept"
        assert ran.empty()
    finally:
        await worker.stop()


async def test_a_queueing_lock_keeps_one_waiting_job_and_the_transaction(database):
    async with database.transaction() as connection:
        first = await defer(connection, "t:x", {}, queue="q", queueing_lock="l", delay_seconds=60)
        second = await defer(connection, "t:x", {}, queue="q", queueing_lock="l")
        count = (await connection.execute(sa.text("SELECT count(*) FROM procrastinate_jobs"))).scalar_one()
    assert (first is not None, second, count) == (True, None, 1)


async def test_a_job_broken_off_by_a_shutdown_runs_again(database):
    blueprint, started = Blueprint(), asyncio.Queue()

    @blueprint.task(name="t:slow", pass_context=True, retry=Retry(()))
    async def slow(context):
        await started.put(context.job.attempts)
        if context.job.attempts == 0:
            await asyncio.Event().wait()

    async with database.transaction() as connection:
        await defer(connection, "t:slow", {}, queue="q", lock="one")
    for attempt in range(2):
        worker = await _run_worker(database, blueprint, {})
        async with asyncio.timeout(10):
            assert await started.get() == attempt
        await worker.stop()


async def _leave_behind(database: Database, lock: str) -> None:
    """Leave a job as a killed worker does: begun, and the worker's heart still."""
    async with database.transaction() as connection:
        job_id = await defer(connection, "t:note", {"text": f"left {lock}"}, queue="q", lock=lock, queueing_lock=lock)
        beginning = "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = :id"
        await connection.execute(sa.text(beginning), {"id": job_id})


async def test_jobs_of_a_lost_worker_run_again_though_one_waits_to_do_the_same(database):
    """A number provisioned once more while it is being provisioned, and then kill -9; behind it another job."""
    blueprint, ran = Blueprint(), asyncio.Queue()

    @blueprint.task(name="t:note", pass_context=True)
    async def note(context, text):
        await ran.put(text)

    await _leave_behind(database, "a")
    async with database.transaction() as connection:
        waiting = await defer(connection, "t:note", {"text": "again a"}, queue="q", lock="a", queueing_lock="a")
    await _leave_behind(database, "b")
    assert waiting is not None
    worker = await _run_worker(database, blueprint, {})
    try:
        async with asyncio.timeout(60):
            assert {await ran.get(), await ran.get()} == {"again a", "left b"}
    finally:
        await worker.stop()


async def test_a_failed_job_gives_way_to_the_one_that_waits_to_do_the_same(database):
    blueprint, ran = Blueprint(), asyncio.Queue()

    @blueprint.task(name="t:try", pass_context=True, retry=Retry((0.1,)))
    async def try_it(context, number):
        await ran.put(number)
        if number == 1:
            async with database.transaction() as connection:
                await defer(connection, "t:try", {"number": 2}, queue="q", lock="l", queueing_lock="l")
            raise ZeroDivisionError

    async with database.transaction() as connection:
        await defer(connection, "t:try", {"number": 1}, queue="q", lock="l", queueing_lock="l")
    worker = await _run_worker(database, blueprint, {})
    try:
        async with asyncio.timeout(60):
            assert [await ran.get(), await ran.get()] == [1, 2]
    finally:
        await worker.stop()
