"""Looks, once a minute, at every part and at the API of every provider that a trunk uses, and keeps what was seen.

One in every process, and no durable job: a look must find that the workers are down. What is found while the database
is away is told to it when it is back. Of minutes in which no process looked, nothing is known.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx2
import sqlalchemy as sa

from voxpria_server import readiness
from voxpria_server.kit.clock import utc_now
from voxpria_server.kit.db import Database, DatabaseUnavailableError
from voxpria_server.kit.ending import end_task
from voxpria_server.kit.logs import get_logger
from voxpria_server.providers.base import Mode
from voxpria_server.reference import history, queries, status

_log = get_logger(__name__)
_API_SECONDS = 5.0
_PROVIDER_SECONDS = 10.0
_LOOK_SECONDS = 40.0
_STOP_SECONDS = 0.5
_AFTER_SECONDS = 10
"""So long after each full minute is looked, and so long at least after the start, when all parts come up."""
_MOST_UNTOLD = 24 * 60


class Lookout:
    """The lookout of a process: `start` it within the event loop, `stop` it before its parts are closed."""

    def __init__(self, parts: Mapping[str, Any], clock: Callable[[], datetime] = utc_now) -> None:
        """`parts`: the process's, by their names on `app.state`."""
        self._parts, self._clock = parts, clock
        self._untold: dict[datetime, dict[str, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, in a task of its own."""
        self._task = asyncio.create_task(self._keep_looking(), name="lookout")

    async def stop(self) -> None:
        """End; what it found is kept already."""
        if self._task is not None:
            await end_task(self._task, _STOP_SECONDS)

    async def look(self) -> None:
        """Look, unless another process has looked in this minute; keep what is found."""
        database: Database = self._parts["database"]
        is_sandbox = self._parts["settings"].sandbox
        minute = history.minute_of(self._clock())
        try:
            async with database.read() as conn:
                if minute <= await history.last_minute(conn):
                    return
                seen = await queries.trunks_seen(conn, status.PROVIDERS, is_sandbox=is_sandbox)
        except (DatabaseUnavailableError, sa.exc.DBAPIError):
            await self._remember(minute)
            return
        mode: Mode = "test" if is_sandbox else "live"
        api, workers, edge, apis = await asyncio.gather(
            self._api(),
            readiness.in_time(readiness.check_workers(database)),
            readiness.in_time(readiness.check_edge(database)),
            self._apis([name for name in status.PROVIDERS if name in seen], mode),
        )
        states = {"API": api, "Database": "operational"}
        states |= {"Workers": _state(is_up=workers is None), "Edge": _state(is_up=edge is None)}
        for name in status.PROVIDERS:
            states[name] = status.provider(apis.get(name, "unknown"), seen.get(name))["status"]
        async with database.transaction() as conn:
            await history.record(conn, states, minute, self._untold)
            await queries.put_checks(conn, {status.key_of(name): state for name, state in apis.items()}, minute)
        self._untold.clear()

    async def _keep_looking(self) -> None:
        await asyncio.sleep(_AFTER_SECONDS)
        while True:
            to_next = 60 - (self._clock().timestamp() - _AFTER_SECONDS) % 60
            await asyncio.sleep(to_next + random.uniform(0, _AFTER_SECONDS))  # noqa: S311  (jitter)
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self.look()
            except Exception as error:  # whatever it was, the next minute is looked at
                _log.warning("not looked how all is", error=type(error).__name__)

    async def _remember(self, minute: datetime) -> None:
        """Keep for later that the database was away, and with it the work of its jobs."""
        found = dict.fromkeys((*status.PARTS, *status.PROVIDERS), "unknown")
        self._untold[minute] = found | {"API": await self._api(), "Database": "down", "Workers": "down"}
        for oldest in sorted(self._untold)[:-_MOST_UNTOLD]:
            del self._untold[oldest]

    async def _api(self) -> str:
        """Ask the API where customers do."""
        http: httpx2.AsyncClient = self._parts["http"]
        try:
            answer = await http.get(f"{self._parts['settings'].public_url}/healthz", timeout=_API_SECONDS)
        except httpx2.HTTPError:
            return "down"
        return _state(is_up=answer.is_success)

    async def _apis(self, used: Sequence[str], mode: Mode) -> dict[str, str]:
        """Ask the providers' APIs, side by side."""
        answers = await asyncio.gather(*(self._answers(name, mode) for name in used))
        return dict(zip(used, answers, strict=True))

    async def _answers(self, name: str, mode: Mode) -> str:
        try:
            async with asyncio.timeout(_PROVIDER_SECONDS):
                is_there = await self._parts["providers"][name].answers(mode)
        except TimeoutError:
            is_there = False
        return _state(is_up=is_there)


def _state(*, is_up: bool) -> str:
    return "operational" if is_up else "down"
