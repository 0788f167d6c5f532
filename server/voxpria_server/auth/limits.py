"""How much an account may do in a time, each mode for itself: requests an hour, imported numbers a minute.

A window opens with the first use and ends on a whole second, so that `X-RateLimit-Reset` says exactly when. The windows
are rows of one unlogged table, counted by one upsert, so they are exact however many processes there are.

    async def import_number(caller: Writer, conn: Connection, imports: Imports, …):
        left = await imports.left(conn)  # imports of one account and mode take turns from here
        added = …                        # what counts is done, as long as any is left
        await imports.count(conn, added) # in the same transaction: what is rolled back was never counted
"""

from typing import Annotated, Literal, Protocol

import msgspec
from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth import queries
from voxpria_server.errors import LimitExceededError
from voxpria_server.settings import SettingsPart

Kind = Literal["requests", "imports"]

WINDOW_SECONDS: dict[Kind, int] = {"requests": 3600, "imports": 60}
_WORDS = {
    "requests": ("rate_limit_exceeded", "Too many requests: this account has used up its requests of this hour."),
    "imports": ("import_limit_exceeded", "Too many imports: this account has used up its imports of this minute."),
}


class Window(msgspec.Struct, frozen=True):
    """Where a limit stands after a use, or after one that was refused (`is_exceeded`)."""

    kind: Kind
    limit: int
    used: int
    resets_at: int
    """Unix seconds."""
    seconds_left: int
    is_exceeded: bool

    @property
    def left(self) -> int:
        """How many uses are left."""
        return max(0, self.limit - self.used)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that tell a client."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.left),
            "X-RateLimit-Reset": str(self.resets_at),
        }

    @property
    def error(self) -> LimitExceededError:
        """The answer to a use that was refused."""
        code, message = _WORDS[self.kind]
        return LimitExceededError(
            message,
            code=code,
            details={"limit": self.limit, "window_seconds": WINDOW_SECONDS[self.kind]},
            headers={"Retry-After": str(max(1, self.seconds_left))},
        )


def next_reset(kind: Kind, now: float) -> int:
    """Return when a window that opened now would end; both in unix seconds."""
    return int(now) + WINDOW_SECONDS[kind]


async def count_imports(conn: AsyncConnection, account_id: str, mode: str, count: int, *, per_minute: int) -> Window:
    """Count `count` imported numbers, all or none, within the transaction that imports them.

    Imports of one account and mode take turns from here to the end of the transaction. `per_minute`: the setting, which
    holds unless the account's plan says another.
    """
    counted = await queries.count_imports(conn, account_id, mode, count, per_minute)
    row = counted or await queries.count_imports(conn, account_id, mode, 0, per_minute)
    assert row is not None
    return Window("imports", row.limit, row.used, row.resets_at, row.seconds_left, is_exceeded=counted is None)


class Allowance(Protocol):
    """The imports that an account has left in a mode."""

    async def left(self, conn: AsyncConnection) -> int:
        """Take the account's turn, which lasts as long as the transaction; return how many imports are left."""

    async def count(self, conn: AsyncConnection, count: int) -> None:
        """Count `count` numbers within the transaction that imports them.

        Raises 429 import_limit_exceeded if that is more than is left, which undoes the transaction.
        """


class ImportAllowance:
    """The caller's imports, for one request (an `Allowance`); the answer's headers say where they stand."""

    def __init__(self, request: Request, per_minute: int) -> None:
        self._request, self._per_minute = request, per_minute
        self._window: Window | None = None

    async def left(self, conn: AsyncConnection) -> int:
        """Do as `Allowance.left` says."""
        return (await self._count(conn, 0)).left

    async def count(self, conn: AsyncConnection, count: int) -> None:
        """Do as `Allowance.count` says."""
        window = await self._count(conn, count)
        if window.is_exceeded:
            raise window.error

    @property
    def refusal(self) -> LimitExceededError:
        """The answer to a number for which no import was left when that was last looked at."""
        assert self._window is not None
        return self._window.error

    async def _count(self, conn: AsyncConnection, count: int) -> Window:
        caller, per_minute = self._request.state.caller, self._per_minute
        window = await count_imports(conn, caller.account_id, caller.mode, count, per_minute=per_minute)
        self.show(window)
        return window

    def show(self, window: Window) -> None:
        """Have the answer say that the limit stands there."""
        self._request.state.headers.update(window.headers)
        self._window = window


async def import_allowance(request: Request, settings: SettingsPart) -> ImportAllowance:
    """Return the caller's imports, for the endpoints that count them."""
    return ImportAllowance(request, settings.imports_per_minute)


Imports = Annotated[ImportAllowance, Depends(import_allowance)]
