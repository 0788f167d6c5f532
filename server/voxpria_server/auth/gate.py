"""Where every request is counted: those of one key that arrive while a count is under way are counted together.

So a busy account's requests take their places in one statement instead of waiting in turn for the row of its limit, and
the limit stays exact: each gets a place of its own. A key is looked up by a statement that begins after the request
came, so one that has been revoked lets nobody in.
"""

from collections.abc import Sequence

import asyncpg

from voxpria_server.auth import queries
from voxpria_server.kit.db import Database
from voxpria_server.kit.together import Together

Name = tuple[bytes, str | None, bool]
Place = tuple[asyncpg.Record, int]
"""The key with its plan and windows, and the how-manieth use of its limit a request is."""


class Gate:
    """The gate of a process."""

    def __init__(self, database: Database, *, requests_per_hour: int, imports_per_minute: int) -> None:
        """Make a gate; the limits hold where an account's plan has none."""
        self._database = database
        self._limits = {"requests_per_hour": requests_per_hour, "imports_per_minute": imports_per_minute}
        self._together = Together(self._count)

    async def enter(self, secret_sha256: bytes, address: str | None, *, counts_imports: bool) -> Place | None:
        """Count a request; return its key and place, None if there is no such key. Raises as `Database.fetch` does."""
        return await self._together.ask((secret_sha256, address, counts_imports), None)

    async def _count(self, name: Name, requests: Sequence[None]) -> Sequence[Place | None]:
        """Count requests; return each one's place."""
        secret_sha256, address, counts_imports = name
        count = len(requests)
        key = await queries.count_requests(
            self._database, secret_sha256, count, address=address, counts_imports=counts_imports, **self._limits
        )
        if key is None:
            return [None] * count
        used = key["used"] or 0
        return [(key, used - count + n) for n in range(1, count + 1)]
