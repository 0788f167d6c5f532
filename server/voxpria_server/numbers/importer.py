"""Single imports: those of one account and mode that come while one is under way are imported together.

They take turns (`auth.limits`), each as long as its transaction. Alone, each import would wait for the turns of all
before it; together, they wait for one. Each is judged and answered for itself, as a row of a batch is.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.limits import ImportAllowance, Window, count_imports
from voxpria_server.auth.service import Caller
from voxpria_server.errors import ApiError
from voxpria_server.kit.db import Database, RequestDatabase
from voxpria_server.kit.together import Together
from voxpria_server.numbers import service
from voxpria_server.numbers.schemas import NumberImport
from voxpria_server.numbers.service import Imported

Owner = tuple[str, str]
Asked = tuple[Caller, NumberImport]
Told = tuple[Imported | ApiError, Window]


class Importer:
    """The importer of a process."""

    def __init__(self, database: Database, *, imports_per_minute: int) -> None:
        """Make an importer; the limit holds where an account's plan has none."""
        self._database, self._per_minute = database, imports_per_minute
        self._together = Together(self._import)

    async def import_number(
        self, database: RequestDatabase, caller: Caller, body: NumberImport, imports: ImportAllowance
    ) -> Imported:
        """Add and count a number; raise why it can't be had.

        A request that has its transaction (that of its idempotency key) imports within it, and so alone.
        """
        if database.has_transaction:
            async with database.transaction() as conn:
                return await service.import_number(conn, caller, body, imports)
        outcome, window = await self._together.ask((caller.account_id, caller.mode), (caller, body))
        imports.show(window)
        if isinstance(outcome, ApiError):
            raise outcome
        return outcome

    async def _import(self, owner: Owner, asked: Sequence[Asked]) -> list[Told]:
        """Import what an account asks for, in one transaction; return what came of each, and where the limit stood."""
        turn = _Turn(owner, self._per_minute)
        caller, _ = asked[0]
        async with self._database.transaction() as conn:
            outcomes = await service.import_numbers(conn, caller, [body for _, body in asked], turn)
        used = turn.window.used - sum(isinstance(outcome, Imported) for outcome in outcomes)
        told: list[Told] = []
        for outcome in outcomes:
            used += isinstance(outcome, Imported)
            window = msgspec.structs.replace(turn.window, used=used)
            told.append((window.error if outcome is None else outcome, window))
        return told


class _Turn:
    """The allowance of an account and mode, for one transaction."""

    def __init__(self, owner: Owner, per_minute: int) -> None:
        self._owner, self._per_minute = owner, per_minute

    async def left(self, conn: AsyncConnection) -> int:
        return (await self._count(conn, 0)).left

    async def count(self, conn: AsyncConnection, count: int) -> None:
        window = await self._count(conn, count)
        if window.is_exceeded:
            raise window.error

    async def _count(self, conn: AsyncConnection, count: int) -> Window:
        self.window = await count_imports(conn, *self._owner, count, per_minute=self._per_minute)
        return self.window
