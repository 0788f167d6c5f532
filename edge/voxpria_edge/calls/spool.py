"""The edge's own memory: what is not yet reported, and the calls that are not yet done with. SQLite, one writer thread.

A commit is on disk when `commit` returns; commits that come together share one transaction. A crash of this process
at any moment leaves whole commits, in order.

A call in whose middle we are holds the keys of its media while it lasts; when it is forgotten, so are these, in the
write-ahead log too.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
from voxpria_routing.events import CallEvent

from voxpria_edge.calls.call import Call

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS calls (id TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS heard (id TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS heard_at ON heard (at);
CREATE TABLE IF NOT EXISTS dead (id TEXT PRIMARY KEY, error TEXT NOT NULL, body BLOB NOT NULL);
"""
_HEARD_FOR_SECONDS = 600.0
"""What was acknowledged may still be on its way a second time. No command is repeated for longer."""
_MOST_AT_ONCE = 1000
_MOST_WAITING = 10_000
_MOST_REFUSED = 10_000
"""Kept aside, for whoever looks for the fault; then the oldest go."""


@dataclass(frozen=True)
class Change:
    """What is to be remembered together."""

    events: Sequence[CallEvent] = ()
    calls: Mapping[str, Call | None] = field(default_factory=dict)
    """By id; None forgets the call."""
    heard: str | None = None
    """Id of the message of Kamailio's that this came of."""


class Spool:
    """Durable, ordered, and never on the event loop."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._with_keys: set[str] = set()
        """Calls in the file that hold keys of media, by id."""
        self._path = path
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self.grown = asyncio.Event()
        """Set whenever there is something to report."""
        self.unsent = 0
        self.on_kept: Callable[[Sequence[CallEvent]], None] | None = None
        """Hears events once they are on disk."""

    async def open(self) -> list[Call]:
        """Open or make the file; return the calls that are not done with."""
        calls = await self._do(self._open)
        self.unsent = await self._do(lambda: int(self._db.execute("SELECT count(*) FROM outbox").fetchone()[0]))
        return calls

    def _open(self) -> list[Call]:
        self._path.touch(mode=0o600)
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.executescript(_SCHEMA)
        self._wipe_log()  # a crash may have left in it what was forgotten
        rows = self._db.execute("SELECT body FROM calls ORDER BY id").fetchall()
        calls = [msgspec.json.decode(body, type=Call) for (body,) in rows]
        self._with_keys = {call.id for call in calls if _has_keys(call)}
        return calls

    async def run(self) -> None:
        """Write what waits, together, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            await self._write(batch)

    async def _write(self, batch: list[tuple[Change, asyncio.Future[None]]]) -> None:
        try:
            added = await self._do(lambda: self._store([change for change, _ in batch]))
        except sqlite3.Error as error:
            for _, done in batch:
                done.set_exception(error)
            return
        self.unsent += added
        if added:
            self.grown.set()
        for change, done in batch:
            if not done.cancelled():
                done.set_result(None)
            if self.on_kept is not None and change.events:
                self.on_kept(change.events)

    async def commit(self, change: Change) -> None:
        """Remember the change; returns when it is on disk. Raises sqlite3.Error when it can't be."""
        if len(self._waiting) >= _MOST_WAITING:
            raise sqlite3.OperationalError("the disk does not keep up")
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._wake.set()
        await done

    def _store(self, changes: Iterable[Change]) -> int:
        added, forgets_keys = 0, False
        with self._transaction() as db:
            for change in changes:
                for event in change.events:
                    row = (event.id, msgspec.json.encode(event))
                    added += db.execute("INSERT OR IGNORE INTO outbox (id, body) VALUES (?, ?)", row).rowcount
                for id_, call in change.calls.items():
                    if call is None:
                        db.execute("DELETE FROM calls WHERE id = ?", (id_,))
                        forgets_keys = forgets_keys or id_ in self._with_keys
                        self._with_keys.discard(id_)
                    else:
                        if _has_keys(call):
                            self._with_keys.add(id_)
                        db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", (id_, msgspec.json.encode(call)))
                if change.heard is not None:
                    db.execute("INSERT OR IGNORE INTO heard VALUES (?, ?)", (change.heard, time.time()))
        if forgets_keys:
            self._wipe_log()
        return added

    def _wipe_log(self) -> None:
        """Empty the write-ahead log: pages as they were before a deletion stand in it until it is written over."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)

    async def unheard(self, ids: Sequence[str]) -> set[str]:
        """Return those of Kamailio's message ids that nothing is remembered of."""

        def look() -> set[str]:
            known = (self._db.execute("SELECT 1 FROM heard WHERE id = ?", (id_,)).fetchone() for id_ in ids)
            return {id_ for id_, row in zip(ids, known, strict=True) if row is None}

        return await self._do(look)

    async def forget_heard(self, unacknowledged: Iterable[str]) -> None:
        """Forget what was heard some while ago, but for the messages that Kamailio may say again: `unacknowledged`."""
        before, kept = time.time() - _HEARD_FOR_SECONDS, msgspec.json.encode(list(unacknowledged)).decode()
        forget = (
            "DELETE FROM heard WHERE id IN"
            " (SELECT id FROM heard WHERE at < ? AND id NOT IN (SELECT value FROM json_each(?)) LIMIT ?)"
        )
        while await self._do(lambda: self._db.execute(forget, (before, kept, _MOST_AT_ONCE)).rowcount) == _MOST_AT_ONCE:
            pass  # in between, calls are written

    async def oldest(self, limit: int) -> list[tuple[int, CallEvent]]:
        """Return the oldest events not yet reported, with their places."""

        def look() -> list[tuple[int, CallEvent]]:
            rows = self._db.execute("SELECT seq, body FROM outbox ORDER BY seq LIMIT ?", (limit,)).fetchall()
            return [(seq, msgspec.json.decode(body, type=CallEvent)) for seq, body in rows]

        return await self._do(look)

    async def reported(self, places: Sequence[int], refused: Mapping[str, str]) -> None:
        """Forget reported events; keep the last 10,000 that were refused for good (by id, with the error) aside.

        This is on disk with the next commit only, so that the next report does not wait for the disk. What is reported
        twice, after a crash, is taken once.
        """

        def forget() -> None:
            self._db.execute("PRAGMA synchronous=NORMAL")
            try:
                with self._transaction() as db:
                    for id_, error in refused.items():
                        copy = "INSERT OR REPLACE INTO dead SELECT id, ?, body FROM outbox WHERE id = ?"
                        db.execute(copy, (error, id_))
                    if refused:
                        db.execute(f"DELETE FROM dead WHERE rowid <= (SELECT max(rowid) FROM dead) - {_MOST_REFUSED}")  # noqa: S608  (a number of ours)
                    db.executemany("DELETE FROM outbox WHERE seq = ?", [(place,) for place in places])
            finally:
                self._db.execute("PRAGMA synchronous=FULL")

        await self._do(forget)
        self.unsent -= len(places)

    async def close(self) -> None:
        """Write what waits, and close."""
        batch, self._waiting = self._waiting, []
        if batch:
            await self._write(batch)
        await self._do(self._db.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class _Transaction:
    """BEGIN … COMMIT, or ROLLBACK when it fails."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _has_keys(call: Call) -> bool:
    return call.bridge is not None and any(
        "a=crypto:" in sdp for sdp in (call.bridge.callee_sdp, call.bridge.agent_sdp)
    )
