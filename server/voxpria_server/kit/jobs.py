"""Durable work on Procrastinate: jobs are rows, deferred in the transaction that makes them true.

A slice declares its tasks on a `Blueprint` in its `jobs.py` (`pass_context=True`, a full `name`, a `Retry`);
`main` and `worker` put the blueprints together with `create_app` and run a `Worker`. What a task needs stands in
`context.additional_context`: the same parts by the same names as on `app.state`.
"""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import procrastinate
import procrastinate.exceptions
import sqlalchemy as sa
from procrastinate import App, Blueprint, JobContext, PsycopgConnector
from procrastinate.jobs import DeleteJobCondition, Job, Status
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database
from voxpria_server.kit.ending import end_task
from voxpria_server.kit.logs import get_logger, log_job
from voxpria_server.kit.metrics import measure_job
from voxpria_server.kit.tracing import job_arguments, trace_job

__all__ = ["App", "Blueprint", "JobContext", "Retry", "Worker", "create_app", "defer", "defer_many", "is_any_alive"]

_log = get_logger(__name__)

_DEFER = sa.text(
    "SELECT unnest(procrastinate_defer_jobs_v1(ARRAY[ROW("
    " CAST(:queue AS varchar), CAST(:task AS varchar), 0, CAST(:lock AS text), CAST(:queueing_lock AS text),"
    " CAST(:args AS jsonb), CASE WHEN CAST(:delay AS float8) > 0"
    " THEN now() + CAST(:delay AS float8) * interval '1 s' END"
    ")::procrastinate_job_to_defer_v1]))"
)

_DEFER_MANY = sa.text(
    "SELECT procrastinate_defer_jobs_v1(ARRAY(SELECT ROW("
    " CAST(:queue AS varchar), CAST(:task AS varchar), 0, lock, lock, CAST(one AS jsonb),"
    " CASE WHEN CAST(:delay AS float8) > 0 THEN now() + CAST(:delay AS float8) * interval '1 s' END"
    ")::procrastinate_job_to_defer_v1 FROM unnest(CAST(:args AS text[]), CAST(:locks AS text[]))"
    " WITH ORDINALITY AS given (one, lock, position) ORDER BY position))"
)


_ALIVE = "SELECT 1 FROM procrastinate_workers WHERE last_heartbeat > now() - $1::interval LIMIT 1"


async def defer(
    conn: AsyncConnection,
    task_name: str,
    args: Mapping[str, Any],
    *,
    queue: str,
    lock: str | None = None,
    queueing_lock: str | None = None,
    delay_seconds: float = 0,
) -> int | None:
    """Defer a job within the caller's transaction and return its id.

    Jobs of one `lock` run one after another. While a job with the same `queueing_lock` waits, no second one is
    added and None is returned. `args` must be JSON, and no secret: they are kept in the jobs' table.
    """
    values = {
        "queue": queue,
        "task": task_name,
        "lock": lock,
        "queueing_lock": queueing_lock,
        "args": json.dumps({**job_arguments(), **args}),
        "delay": float(delay_seconds),
    }
    if queueing_lock is None:
        return int((await conn.execute(_DEFER, values)).scalar_one())
    try:
        async with conn.begin_nested():
            return int((await conn.execute(_DEFER, values)).scalar_one())
    except sa.exc.IntegrityError:
        return None


async def defer_many(
    conn: AsyncConnection,
    task_name: str,
    args: Sequence[Mapping[str, Any]],
    *,
    queue: str,
    locks: Sequence[str] = (),
    delay_seconds: float = 0,
) -> None:
    """Defer a job for each of `args`, in one statement within the caller's transaction.

    `locks`: each job's `lock` and `queueing_lock`, for jobs of new things: none of them may be waited for already.
    """
    more = job_arguments()
    each = [json.dumps({**more, **one}) for one in args]
    values = {"queue": queue, "task": task_name, "args": each, "locks": list(locks), "delay": float(delay_seconds)}
    await conn.execute(_DEFER_MANY, values)


class Retry(BaseRetryStrategy):
    """Retries after each of `delays_seconds` in turn, then gives up; `forever` goes on with the last of them.

    Delays are spread by up to a quarter, so that what failed together does not come back together. A job that a
    shutdown broke off runs again at once; that is no failure. `only` limits the retried exceptions.
    """

    def __init__(
        self,
        delays_seconds: tuple[float, ...],
        *,
        forever: bool = False,
        only: tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        self._delays, self._forever, self._only = delays_seconds, forever, only

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Say when the job runs again, if it does; `job.attempts` counts the runs before this one."""
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_at=utc_now())
        if not isinstance(exception, self._only) or not (self._forever or self.is_left(job)):
            return None
        delay = self._delays[min(job.attempts, len(self._delays) - 1)]
        milliseconds = int(delay * 1000 * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
        return RetryDecision(retry_in={"milliseconds": milliseconds})

    def is_left(self, job: Job) -> bool:
        """Tell whether a failure of this run would be followed by another run."""
        return job.attempts < len(self._delays)


class _Queue(JobManager):
    """Procrastinate's queue, in which no job is in the way of the one that waits to do the same again."""

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Have a job run again; where one with its queueing lock waits already, that one is its next run.

        Two of them can't wait, so this one would stay as it is, not running, and its lock would keep back the other
        for good.
        """
        try:
            await super().retry_job(job, retry_at, priority, queue, lock)
        except procrastinate.exceptions.UniqueViolation:
            await self.finish_job(job, Status.FAILED, delete_job=True)


def create_app(url: str, blueprints: Iterable[Blueprint]) -> App:
    """Return the Procrastinate app with every slice's tasks, by the names that the slices give them.

    Not `add_tasks_from`: it renames the tasks of the blueprint itself, so a blueprint could only be bound once.
    """
    connector = PsycopgConnector(
        conninfo=url,
        min_size=1,
        max_size=6,
        timeout=5,
        reconnect_timeout=5,
        kwargs={"connect_timeout": 3, "options": "-c statement_timeout=10000", "application_name": "voxpria-worker"},
    )
    app = App(connector=connector)
    app.job_manager = _Queue(connector)
    for blueprint in blueprints:
        app.tasks.update(blueprint.tasks)
        app.periodic_registry.periodic_tasks.update(blueprint.periodic_registry.periodic_tasks)
    for task in app.tasks.values():
        task.blueprint = app
    return app


async def is_any_alive(database: Database) -> bool:
    """Tell whether a worker works on the database, in this process or any other. Raises DatabaseUnavailableError."""
    rows = await database.fetch(_ALIVE, timedelta(seconds=Worker.STALLED_SECONDS))
    return bool(rows)


class Worker:
    """Runs the jobs in this process, comes back by itself after every loss of the database."""

    _HEARTBEAT_SECONDS = 5.0
    _LOOK_SECONDS = 0.5
    """How often is looked for jobs that became due by the clock, as retries do; new ones ring."""
    STALLED_SECONDS = 15.0
    _SHUTDOWN_SECONDS = 1.5
    _RESCUE_END_SECONDS = 0.2

    def __init__(self, make_app: Callable[[], App], parts: dict[str, Any], *, concurrency: int = 20) -> None:
        """`make_app` makes a fresh app (and pool) for each start; `parts` is what the tasks find in their context."""
        self._make_app, self._parts, self._concurrency = make_app, parts, concurrency
        self._task: asyncio.Task[None] | None = None
        self.down_reason: str | None = "not started"
        """Why no job runs now; None while they do."""

    def start(self) -> None:
        """Start, in a task of its own."""
        self._task = asyncio.create_task(self._keep_running(), name="jobs worker")

    async def stop(self) -> None:
        """Let running jobs end for 1.5 s, then break them off; they run again elsewhere or later."""
        if self._task is not None:
            await end_task(self._task, self._SHUTDOWN_SECONDS + 0.5)
        self.down_reason = "stopped"

    async def _keep_running(self) -> None:
        pause = 0.1
        while True:
            started_at = asyncio.get_running_loop().time()
            try:
                await self._run()
                self.down_reason = "lost its database connection"
            except Exception as error:  # whatever it was, the queue must be worked on
                self.down_reason = f"{type(error).__name__}"
                _log.warning("worker stopped, and starts again", error=type(error).__name__)
            if asyncio.get_running_loop().time() - started_at > self.STALLED_SECONDS:
                pause = 0.1
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  (jitter)
            pause = min(pause * 2, 2.0)

    async def _run(self) -> None:
        app = self._make_app()
        async with app.open_async():
            rescue = asyncio.create_task(self._rescue(app), name="stalled jobs")
            try:
                self.down_reason = None
                await app.run_worker_async(
                    concurrency=self._concurrency,
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=self._SHUTDOWN_SECONDS,
                    fetch_job_polling_interval=self._LOOK_SECONDS,
                    update_heartbeat_interval=self._HEARTBEAT_SECONDS,
                    stalled_worker_timeout=self.STALLED_SECONDS,
                    delete_jobs=DeleteJobCondition.SUCCESSFUL.value,
                    additional_context=self._parts,
                    task_middleware=[trace_job, log_job, measure_job],
                )
            finally:
                await end_task(rescue, self._RESCUE_END_SECONDS)

    async def _rescue(self, app: App) -> None:
        """Run again what a killed worker left behind: its heart has not beaten for 15 s."""
        while True:
            try:
                await app.job_manager.prune_stalled_workers(self.STALLED_SECONDS)
                stalled = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=self.STALLED_SECONDS)
            except procrastinate.exceptions.ConnectorException as error:
                _log.warning("stalled jobs not looked for", error=type(error).__name__)
                stalled = []
            for job in stalled:
                await self._run_again(app, job)
            await asyncio.sleep(self._HEARTBEAT_SECONDS)

    async def _run_again(self, app: App, job: Job) -> None:
        """Put a job of a lost worker back into the queue; what hinders that is no hindrance to the others."""
        try:
            await app.job_manager.retry_job(job)
            _log.warning("job of a lost worker runs again", task=job.task_name, job_id=job.id)
        except procrastinate.exceptions.ConnectorException as error:  # another process may have been first
            _log.warning(
                "job of a lost worker not put back", task=job.task_name, job_id=job.id, error=type(error).__name__
            )
