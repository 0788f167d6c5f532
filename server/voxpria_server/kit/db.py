"""PostgreSQL: one transaction a request, short reads beside it, and notifications. Every wait has a deadline.

Three pools, so that none can starve the other: `transaction()` for work, `read()` for one quick statement that
must not wait behind work, and `fetch()` for such a one on the driver itself, where every request passes. A connection
of the last two is never held while waiting for anything but the database.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Annotated, Any

import asyncpg
import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from voxpria_server.kit.notify import Listener
from voxpria_server.kit.parts import part
from voxpria_server.kit.tracing import statement_span, watch

CONNECT_TIMEOUT_SECONDS = 5.0
POOL_TIMEOUT_SECONDS = 8.0
"""How long a request waits for a connection, its opening included: a burst on a busy machine is served late, not
refused. A database that is gone is noticed without it, as connecting fails at once."""
STATEMENT_TIMEOUT_SECONDS = 8.0
WAIT_SECONDS = 12.0
"""How long a `waiting_transaction` waits for another transaction: longer than any request takes."""


def _connect_options(statement_seconds: float = STATEMENT_TIMEOUT_SECONDS, lock_seconds: float = 0) -> dict[str, Any]:
    """Return how a connection is opened, by SQLAlchemy's pools and by the driver's."""
    return {
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "command_timeout": statement_seconds + 2,
        "server_settings": {
            "application_name": "voxpria-server",
            "statement_timeout": str(int(statement_seconds * 1000)),
            "lock_timeout": str(int(lock_seconds * 1000)),
            "idle_in_transaction_session_timeout": "30000",
            "timezone": "UTC",
        },
    }


Row = sa.Row[*tuple[Any, ...]]
"""A row of any query, read by its columns' names."""

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the control plane; a test compares it with what the migrations make."""


class DatabaseUnavailableError(Exception):
    """The database can't be reached now, or gave no connection in time. Trying again later may help."""


class Database:
    """The process's way to one PostgreSQL. `url` is `postgresql://…`, a unix socket as `?host=/folder`."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.url = url
        self._engine = _create_engine(url, pool_size=pool_size, max_overflow=pool_size)
        self._reads = _create_engine(
            url, pool_size=4, max_overflow=0, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
        )
        self._waiting = _create_engine(
            url,
            connect_args=_connect_options(WAIT_SECONDS + 2, WAIT_SECONDS),
            pool_size=pool_size,
            max_overflow=pool_size,
        )
        self.most_waiting_of_one = max(1, pool_size // 2)
        """How many `waiting_transaction`s, of twice `pool_size` that there are, one account may have."""
        self._quick = _QuickPool(url)
        self.listener = Listener(url)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection within a transaction: committed at the end, rolled back on an exception.

        Raises DatabaseUnavailableError when the database is away, before or while it is used.
        """
        async with _connected(self._engine) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def waiting_transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give what `transaction` does, on a connection that may wait up to 12 s for another transaction.

        From a pool of its own: such a transaction may be held while `transaction` gives others, never the reverse.
        """
        async with _connected(self._waiting) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection outside any transaction, for one quick statement. Raises as `transaction` does."""
        async with _connected(self._reads) as connection:
            yield connection

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Return the rows of one quick statement, run on the driver itself: 3 times as fast as through SQLAlchemy.

        Raises as `transaction` does.
        """
        with statement_span(sql):
            try:
                return await self._quick.fetch(sql, *args)
            except Exception as error:
                if isinstance(error, OSError) or _is_outage(error):
                    raise DatabaseUnavailableError(type(error).__name__) from error
                raise

    async def fetch_row(self, sql: str, *args: object) -> asyncpg.Record | None:
        """Return the first row, as `fetch` does."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def ping(self) -> None:
        """Raise DatabaseUnavailableError unless the database answers."""
        async with self.read() as connection:
            await connection.execute(sa.text("SELECT 1"))

    @property
    def connections_in_use(self) -> dict[str, int]:
        """How many connections of each pool are lent out now."""
        return {"work": _lent(self._engine), "reads": _lent(self._reads)}

    async def close(self) -> None:
        """Close every connection."""
        await self.listener.stop()
        await self._engine.dispose()
        await self._reads.dispose()
        await self._waiting.dispose()
        await self._quick.close()


class _QuickPool:
    """A few connections of the driver, made when they are needed, each lent for one statement.

    asyncpg's own pool is general: it makes a task and two time-outs for each loan, and resets what it lent, which
    together cost as much as a quick statement. Single statements leave nothing behind.
    """

    _SIZE = 8

    def __init__(self, url: str) -> None:
        self._url, self._room = url, asyncio.Semaphore(self._SIZE)
        self._idle: list[asyncpg.Connection[asyncpg.Record]] = []

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run the statement; a connection that was broken off in the middle is not lent again."""
        if self._room.locked():
            async with asyncio.timeout(POOL_TIMEOUT_SECONDS):
                await self._room.acquire()
        else:
            await self._room.acquire()
        try:
            return await self._fetch(sql, args)
        finally:
            self._room.release()

    async def _fetch(self, sql: str, args: tuple[object, ...]) -> list[asyncpg.Record]:
        connection = self._take() or await asyncpg.connect(self._url, **_connect_options())
        try:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
        except asyncpg.PostgresError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)
        return rows

    def _take(self) -> "asyncpg.Connection[asyncpg.Record] | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def close(self) -> None:
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with AsyncExitStack() as stack:
        with _outage_named(OSError):
            connection = await stack.enter_async_context(engine.connect())
        with _outage_named(ConnectionError):
            yield connection


@contextmanager
def _outage_named(kind: type[OSError]) -> Iterator[None]:
    """Turn the many ways in which a lost database shows, `kind` among them, into one error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, kind) or _is_outage(error):
            raise DatabaseUnavailableError(type(error).__name__) from error
        raise


def _is_outage(error: Exception) -> bool:
    if isinstance(error, sa.exc.DBAPIError):
        return error.connection_invalidated or _is_driver_outage(error.orig)
    return isinstance(error, sa.exc.TimeoutError | TimeoutError) or _is_driver_outage(error)


def _is_driver_outage(error: BaseException | None) -> bool:
    return isinstance(error, _OUTAGES) or (error is not None and isinstance(error.__cause__, _OUTAGES))


_OUTAGES = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
)


def _create_engine(url: str, connect_args: dict[str, Any] | None = None, **options: Any) -> AsyncEngine:  # noqa: ANN401  (SQLAlchemy's)
    engine = create_async_engine(
        sa.make_url(url).set(drivername="postgresql+asyncpg"),
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_recycle=1800,
        hide_parameters=True,
        connect_args=connect_args or _connect_options(),
        **options,
    )
    sa.event.listen(engine.sync_engine.pool, "checkout", _refuse_closed)
    watch(engine)
    return engine


def _lent(engine: AsyncEngine) -> int:
    pool = engine.sync_engine.pool
    assert isinstance(pool, sa.QueuePool)
    return pool.checkedout()


def _refuse_closed(connection: AdaptedConnection, _record: object, _proxy: object) -> None:
    """Have the pool replace a connection that the server has closed: known without asking, so it costs nothing."""
    if connection.driver_connection.is_closed():
        raise sa.exc.DisconnectionError


def is_lock_timeout(error: sa.exc.DBAPIError) -> bool:
    """Tell whether a statement has waited in vain for another transaction."""
    return bool(getattr(error.orig, "sqlstate", None) == asyncpg.LockNotAvailableError.sqlstate)


def to_second(*columns: str) -> str:
    """Return SQL for times cut to the second, which msgspec writes as `YYYY-MM-DDTHH:MM:SSZ`: for what must be fast."""
    return ", ".join(f"date_trunc('second', {column}) AS {column}" for column in columns)


class RequestDatabase:
    """The database as one request sees it: what the request changes is one transaction.

    Where the request has its transaction already (`request.state.connection`, that of its idempotency key) it is that
    one; else it begins when it is asked for, and so is not held while something outside is waited for.
    """

    def __init__(self, request: Request) -> None:
        self._database: Database = request.app.state.database
        self._connection: AsyncConnection | None = getattr(request.state, "connection", None)

    @property
    def has_transaction(self) -> bool:
        """True if what is to be done belongs to a transaction that goes on already."""
        return self._connection is not None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Give the transaction; committed with this block, or at the end of the request."""
        if self._connection is not None:
            yield self._connection
            return
        async with self._database.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give what `Database.read` does."""
        async with self._database.read() as connection:
            yield connection


async def request_database(request: Request) -> RequestDatabase:
    """Return what `RequestDatabasePart` is."""
    return RequestDatabase(request)


async def request_transaction(request: Request) -> AsyncIterator[AsyncConnection]:
    """Give what `Connection` is."""
    async with RequestDatabase(request).transaction() as connection:
        yield connection


DatabasePart = Annotated[Database, Depends(part("database"))]
"""The database, for what must not happen within the request's transaction: waiting for others."""

RequestDatabasePart = Annotated[RequestDatabase, Depends(request_database)]
"""The database, for what is one transaction but should not be begun before it is needed."""

Connection = Annotated[AsyncConnection, Depends(request_transaction, scope="function")]
"""One transaction a request: committed before the answer is sent, rolled back on an error."""
