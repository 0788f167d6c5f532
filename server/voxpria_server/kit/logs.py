"""Logs: one JSON object a line on stderr; constant text, everything that varies in fields.

Records of libraries (uvicorn, procrastinate, alembic) take the same form.
"""

import json
import logging
import logging.config
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from opentelemetry import trace
from procrastinate import JobContext

from voxpria_server.kit.ids import has_form

Log = structlog.typing.FilteringBoundLogger
_NONE: Mapping[str, str | int] = MappingProxyType({})
_fields: ContextVar[Mapping[str, str | int]] = ContextVar("log_fields", default=_NONE)


def get_logger(name: str) -> Log:
    """Return the logger of a module."""
    logger: Log = structlog.get_logger(name)
    return logger


@contextmanager
def fields(**named: str | int) -> Iterator[None]:
    """Have every line that is logged within the block carry these fields; and those added within, until its end."""
    before = _fields.get()
    _fields.set({**before, **named})
    try:
        yield
    finally:
        _fields.set(before)


def name_in_log(**named: str) -> None:
    """Have the lines that follow in this request or job carry these fields too."""
    _fields.set({**_fields.get(), **named})


def name_ids(path_params: Mapping[str, str]) -> None:
    """Have the lines that follow in this request carry the ids that stand in its path."""
    ids = {name: value for name, value in path_params.items() if name.endswith("_id") and has_form(value)}
    if ids:
        name_in_log(**ids)


async def log_job(run: Callable[[], Awaitable[Any]], context: JobContext, _worker: object) -> Any:  # noqa: ANN401
    """Run a job, its log lines with its id and those among its arguments: middleware of the jobs' app."""
    ids = {name: value for name, value in context.job.task_kwargs.items() if name.endswith("_id")}
    named: dict[str, Any] = {**ids, "job_id": context.job.id, "task": context.job.task_name}
    with fields(**named):
        return await run()


def set_up(level: str) -> None:
    """Send every log record of this process to stderr as JSON. `level` is a name of the logging module."""
    shared: list[Any] = [
        _add_fields,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_time,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_encode)],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _quieten()


class _Lines:
    """Writes our own lines: past the logging module, which takes as long as a query to write one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line, at once."""
        sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = exception = msg


def _encode(record: dict[str, Any], default: Callable[[Any], Any]) -> str:
    try:
        return msgspec.json.encode(record, enc_hook=default).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(record, default=default)


def _add_fields(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add what `fields` and `name_in_log` have named."""
    return {**_fields.get(), **record}


def _add_time(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say when a line was written."""
    record["timestamp"] = msgspec.to_builtins(datetime.now(UTC))
    return record


def _add_trace(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say in which trace a line was written."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        record["trace_id"] = trace.format_trace_id(context.trace_id)
        record["span_id"] = trace.format_span_id(context.span_id)
    return record


def _quieten() -> None:
    """Keep libraries from telling, at info, what our own lines tell; or what holds job arguments."""
    for name in ("procrastinate", "alembic", "uvicorn.access", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
