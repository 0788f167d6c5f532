"""What this process counts, for Prometheus. Labels come from the program, never from a request, so they are few."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from procrastinate import JobContext
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside each counter, which nobody reads

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_requests = Counter("voxpria_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY)
_request_seconds = Histogram(
    "voxpria_request_seconds", "How long an answer took.", ("method", "route"), buckets=_SECONDS, registry=REGISTRY
)
_jobs = Counter("voxpria_jobs", "Runs of jobs, by how they ended.", ("task", "outcome"), registry=REGISTRY)
_job_seconds = Histogram(
    "voxpria_job_seconds", "How long a run of a job took.", ("task",), buckets=_SECONDS, registry=REGISTRY
)


def count_request(method: str, route: str, status: int | None, seconds: float) -> None:
    """Count an answered request. `route` is its template; `status` is None if nothing was answered."""
    requests, request_seconds = _of_requests(method if method in _METHODS else "other", route, status)
    requests.inc()
    request_seconds.observe(seconds)


@cache
def _of_requests(method: str, route: str, status: int | None) -> tuple[Counter, Histogram]:
    """Return what counts such requests; to find it among the labels takes longer than to count."""
    return _requests.labels(method, route, str(status or "none")), _request_seconds.labels(method, route)


async def measure_job(run: Callable[[], Awaitable[Any]], context: JobContext, _worker: object) -> Any:  # noqa: ANN401
    """Run a job and count it: middleware of the jobs' app."""
    with _counted(context.task.name if context.task else "unknown"):
        return await run()


@contextmanager
def _counted(task: str) -> Iterator[None]:
    started_at, outcome = time.perf_counter(), "failed"
    try:
        yield
        outcome = "succeeded"
    finally:
        _jobs.labels(task, outcome).inc()
        _job_seconds.labels(task).observe(time.perf_counter() - started_at)
