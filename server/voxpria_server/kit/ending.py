"""Ends that have a deadline.

`asyncio.wait_for` has none here: in Python 3.11 it waits, without bound, for a task that swallows its cancellation;
and so does the event loop itself when it closes.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any

from voxpria_server.kit.logs import get_logger

_log = get_logger(__name__)
_AGAIN_SECONDS = 0.25
_ending = threading.Event()


class StoppedError(Exception):
    """This process ends, and does not get to what was asked. Another will, or this one when it is back."""


async def end_task(task: asyncio.Task[Any], timeout_seconds: float) -> bool:
    """Cancel a task and wait for its end; False if it goes on after `timeout_seconds`, and is left behind.

    How it ends, and with which error, is of no interest any more.
    """
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
    if not done:
        task.cancel()  # the first may have fallen on deaf ears
        done, _ = await asyncio.wait({task}, timeout=_AGAIN_SECONDS)
    if not done:
        _log.warning("a task did not end in time, and is left behind", name=task.get_name())
    _forget(task)
    return bool(done)


async def close_all(timeout_seconds: float, **closing: Coroutine[Any, Any, None]) -> None:
    """Close things side by side; log what failed, or is not closed after `timeout_seconds`."""
    tasks = [asyncio.create_task(work, name=f"closing {name}") for name, work in closing.items()]
    done, late = await asyncio.wait(tasks, timeout=timeout_seconds)
    for task in done:
        if not task.cancelled() and (error := task.exception()):
            _log.warning("closing failed", name=task.get_name(), error=type(error).__name__)
    for task in late:
        await end_task(task, 0)


def end_process_within(seconds: float) -> None:
    """See to it that this process is gone in `seconds`, whatever hangs. What it has promised is in the database."""
    _ending.set()
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def is_ending() -> bool:
    """Tell whether this process has been told to end."""
    return _ending.is_set()


def _forget(task: asyncio.Task[Any]) -> None:
    """Have nobody complain that the task's error was never looked at."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
