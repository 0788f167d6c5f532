"""Logs: one JSON object a line on stderr; constant text, everything that varies in fields.

Records of libraries (uvicorn, procrastinate, alembic) take the same form.
"""

import json
import logging
import logging.config
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from opentelemetry import trace
from procrastinate import JobContext

from voxpria_server.kit.ids import has_form

_NONE: Mapping[str, str | int] = MappingProxyType({})
_fields: ContextVar[Mapping[str, str | int]] = ContextVar("log_fields", default=_NONE)


class Log:
    """Writes a module's lines, at once; past the logging module, which takes as long as a query to write one."""

    least = logging.INFO
    """Of all modules: the least level that is written."""

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **named: object) -> None:
        """Say what helps to find a fault."""
        if self.least <= logging.DEBUG:
            self._write("debug", event, named)

    def info(self, event: str, **named: object) -> None:
        """Say what happened."""
        if self.least <= logging.INFO:
            self._write("info", event, named)

    def warning(self, event: str, **named: object) -> None:
        """Say what should not happen, and was coped with."""
        if self.least <= logging.WARNING:
            self._write("warning", event, named)

    def error(self, event: str, **named: object) -> None:
        """Say what failed."""
        self._write("error", event, named)

    def exception(self, event: str, **named: object) -> None:
        """Say what failed by the exception that is being handled."""
        self._write("error", event, {**named, "exception": traceback.format_exc().rstrip()})

    def _write(self, level: str, event: str, named: Mapping[str, object]) -> None:
        record = {**_fields.get(), **named, "event": event, "level": level, "logger": self._name}
        with suppress(OSError):  # a full disk, nobody at the other end: the line is lost, not what it tells of
            sys.stderr.write(f"{_encode(_stamped(record))}\n")


def get_logger(name: str) -> Log:
    """Return the logger of a module."""
    return Log(name)


class fields:  # noqa: N801  (reads as what it does)
    """Have every line that is logged within the block carry these fields; and those added within, until its end.

    with fields(request_id=request_id):
    """

    __slots__ = ("_before", "_named")

    def __init__(self, **named: str | int) -> None:
        self._named = named

    def __enter__(self) -> None:
        self._before = _fields.get()
        _fields.set({**self._before, **self._named})

    def __exit__(self, *_: object) -> None:
        _fields.set(self._before)


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
    Log.least = logging.getLevelNamesMapping()[level]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                _add_what_all_have,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.format_exc_info,
            ],
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


def _add_what_all_have(_logger: object, _method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Give a library's record what our own lines have."""
    return _stamped({**_fields.get(), **record})


def _stamped(record: dict[str, Any]) -> dict[str, Any]:
    """Say when a line was written, and in which trace."""
    record["timestamp"] = msgspec.to_builtins(datetime.now(UTC))
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        record["trace_id"] = trace.format_trace_id(context.trace_id)
        record["span_id"] = trace.format_span_id(context.span_id)
    return record


def _encode(record: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(record, enc_hook=repr).decode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(record, default=repr)


def _quieten() -> None:
    """Keep libraries from telling, at info, what our own lines tell; or what holds job arguments."""
    for name in ("procrastinate", "alembic", "uvicorn.access", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
