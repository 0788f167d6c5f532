"""Mirrored messages on disk, by SIP Call-ID, until their call's trace is handed over. SQLite, for one thread.

Bounded a call and as a whole; what no call of ours claims goes after a while. The file may be lost at any time.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from voxpria_edge.trace.story import Seen

MOST_MESSAGES_A_CALL = 200
_MOST_MESSAGES = 200_000
_UNCLAIMED_SECONDS = 120.0
_OLDEST_SECONDS = 24 * 3600.0

_FORM = 2
"""Raised with each change of the schema."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (seq INTEGER PRIMARY KEY, key TEXT NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS messages_key ON messages (key);
CREATE TABLE IF NOT EXISTS calls (
    call_id TEXT PRIMARY KEY, key TEXT NOT NULL, opened_at REAL NOT NULL, is_outbound INTEGER NOT NULL,
    due REAL, is_over INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS calls_key ON calls (key);
CREATE INDEX IF NOT EXISTS calls_due ON calls (due);
CREATE TABLE IF NOT EXISTS aliases (
    key TEXT PRIMARY KEY, call_id TEXT NOT NULL, at REAL NOT NULL DEFAULT (unixepoch())
);
CREATE INDEX IF NOT EXISTS aliases_call_id ON aliases (call_id);
"""


@dataclass(frozen=True)
class Due:
    """A call whose trace is to be handed over now."""

    call_id: str
    key: str
    opened_at: float
    is_over: bool
    is_outbound: bool = False


class Store:
    """The file."""

    def __init__(self, path: Path) -> None:
        try:
            self._open(path)
        except sqlite3.DatabaseError:
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            self._open(path)

    def _open(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._forget_other_forms()

    def _forget_other_forms(self) -> None:
        """Begin anew where the file is of an edge that kept it in another form."""
        if self._db.execute("PRAGMA user_version").fetchone()[0] != _FORM:
            self._db.executescript("DROP TABLE IF EXISTS messages; DROP TABLE IF EXISTS calls;")
            self._db.execute(f"PRAGMA user_version={_FORM}")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def add(self, messages: Iterable[tuple[str, Seen]]) -> None:
        """Keep messages, each with its call's SIP Call-ID; of one that has too many, the later ones are dropped."""
        rows = [(key, seen.at, msgspec.msgpack.encode(seen), MOST_MESSAGES_A_CALL) for key, seen in messages]
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO messages (key, at, body)"
            " SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM messages WHERE key = ?1) < ?4",
            rows,
        )
        self._db.execute("COMMIT")

    def open_call(self, call_id: str, key: str, opened_at: float, *, is_outbound: bool = False) -> None:
        """Say that the messages of this SIP Call-ID belong to a call of ours."""
        row = (call_id, key, opened_at, is_outbound)
        insert = "INSERT OR IGNORE INTO calls (call_id, key, opened_at, is_outbound) VALUES (?, ?, ?, ?)"
        self._db.execute(insert, row)

    def alias(self, key: str, call_id: str) -> None:
        """Say by which other SIP Call-ID a side knows a call."""
        self._db.execute("INSERT OR IGNORE INTO aliases (key, call_id) VALUES (?, ?)", (key, call_id))

    def make_due(self, call_id: str, due: float, *, is_over: bool) -> None:
        """Have a call's trace handed over at a time; once over, for the last time."""
        update = "UPDATE calls SET due = ?, is_over = max(is_over, ?) WHERE call_id = ?"
        self._db.execute(update, (due, is_over, call_id))

    def make_all_due_but(self, open_calls: Iterable[str], due: float) -> None:
        """Have every call's trace handed over but those of calls that are still open: the others ended unheard."""
        self._db.execute("CREATE TEMP TABLE still_open (call_id TEXT PRIMARY KEY)")
        self._db.executemany("INSERT INTO still_open VALUES (?)", [(call_id,) for call_id in open_calls])
        update = "UPDATE calls SET due = ?, is_over = 1 WHERE call_id NOT IN (SELECT call_id FROM still_open)"
        self._db.execute(update, (due,))
        self._db.execute("DROP TABLE still_open")

    def due(self, now: float, limit: int) -> list[Due]:
        """Return the calls whose time has come, the longest waiting first."""
        select = "SELECT call_id, key, opened_at, is_over, is_outbound FROM calls WHERE due <= ? ORDER BY due LIMIT ?"
        rows = self._db.execute(select, (now, limit)).fetchall()
        return [Due(id_, key, at, bool(is_over), bool(is_outbound)) for id_, key, at, is_over, is_outbound in rows]

    def messages(self, call: Due) -> Sequence[Seen]:
        """Return what is kept of a call: of its Call-IDs, and not of an older call that had the same."""
        select = (
            "SELECT body FROM messages WHERE (key = ?1 OR key IN (SELECT key FROM aliases WHERE call_id = ?2))"
            " AND at >= ?3 ORDER BY at, seq"
        )
        rows = self._db.execute(select, (call.key, call.call_id, call.opened_at - 1)).fetchall()
        return [msgspec.msgpack.decode(body, type=Seen) for (body,) in rows]

    def done(self, call: Due) -> None:
        """Be done with what was due: for good, if the call is over."""
        if not call.is_over:
            self._db.execute("UPDATE calls SET due = NULL WHERE call_id = ? AND is_over = 0", (call.call_id,))
            return
        self._db.execute("DELETE FROM calls WHERE call_id = ?", (call.call_id,))
        unclaimed = "DELETE FROM messages WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM calls WHERE key = ?1)"
        self._db.execute(unclaimed, (call.key,))
        self._db.execute(
            "DELETE FROM messages WHERE key IN (SELECT key FROM aliases WHERE call_id = ?)", (call.call_id,)
        )
        self._db.execute("DELETE FROM aliases WHERE call_id = ?", (call.call_id,))

    def sweep(self, now: float) -> None:
        """Drop what nobody has claimed in time, what is too old, and the oldest of too many."""
        self._db.execute("DELETE FROM calls WHERE opened_at < ?", (now - _OLDEST_SECONDS,))
        self._db.execute("DELETE FROM aliases WHERE at < ?", (now - _OLDEST_SECONDS,))
        unclaimed = (
            "DELETE FROM messages WHERE at < ? AND key NOT IN (SELECT key FROM calls)"
            " AND key NOT IN (SELECT aliases.key FROM aliases JOIN calls USING (call_id))"
        )
        self._db.execute(unclaimed, (now - _UNCLAIMED_SECONDS,))
        too_many = "DELETE FROM messages WHERE seq <= (SELECT coalesce(max(seq), 0) FROM messages) - ?"
        self._db.execute(too_many, (_MOST_MESSAGES,))
