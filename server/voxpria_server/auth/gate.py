"""Where every request is counted: those of one key that arrive while a count is under way are counted together.

So a busy account's requests take their places in one statement instead of waiting in turn for the row of its limit, and
the limit stays exact: each gets a place of its own. A key is looked up by a statement that begins after the request
came, so one that has been revoked lets nobody in.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from voxpria_server.auth import queries
from voxpria_server.kit.db import Database

Name = tuple[bytes, str | None, bool]
Place = tuple[asyncpg.Record, int]
"""The key with its plan and windows, and the how-manieth use of its limit a request is."""


class Gate:
    """The gate of a process."""

    def __init__(self, database: Database, *, requests_per_hour: int, imports_per_minute: int) -> None:
        """Make a gate; the limits hold where an account's plan has none."""
        self._database = database
        self._limits = {"requests_per_hour": requests_per_hour, "imports_per_minute": imports_per_minute}
        self._waiting: dict[Name, list[asyncio.Future[Place | None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def enter(self, secret_sha256: bytes, address: str | None, *, counts_imports: bool) -> Place | None:
        """Count a request; return its key and place, None if there is no such key. Raises as `Database.fetch` does."""
        name = (secret_sha256, address, counts_imports)
        waiting = self._waiting.get(name)
        if waiting is not None:
            place: asyncio.Future[Place | None] = asyncio.get_running_loop().create_future()
            waiting.append(place)
            return await place
        self._waiting[name] = []
        try:
            (first,) = await self._count(name, 1)
        finally:
            self._go_on(name)
        return first

    async def _count(self, name: Name, count: int) -> Sequence[Place | None]:
        """Count so many requests; return each one's place."""
        secret_sha256, address, counts_imports = name
        key = await queries.count_requests(
            self._database, secret_sha256, count, address=address, counts_imports=counts_imports, **self._limits
        )
        if key is None:
            return [None] * count
        used = key["used"] or 0
        return [(key, used - count + n) for n in range(1, count + 1)]

    def _go_on(self, name: Name) -> None:
        """Have those counted who came meanwhile."""
        if not self._waiting[name]:
            del self._waiting[name]
            return
        task = asyncio.create_task(self._serve(name), name="gate")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, name: Name) -> None:
        waiting, self._waiting[name] = self._waiting[name], []
        try:
            for place, found in zip(waiting, await self._count(name, len(waiting)), strict=True):
                if not place.done():
                    place.set_result(found)
        except Exception as error:  # whatever it was, it is what each of them would have met
            for place in waiting:
                if not place.done():
                    place.set_exception(error)
        finally:
            for place in waiting:
                place.cancel()
            self._go_on(name)
