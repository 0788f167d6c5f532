"""The database's schema, step by step; `migrate` brings any database to the newest one.

At head it is one query: Alembic is only loaded when there is work. An advisory lock makes processes that start
together take turns.
"""

import re
import time
from pathlib import Path

import psycopg

from voxpria_server.kit.logs import get_logger

_log = get_logger(__name__)
_LOCK_KEY = 0x766F7870  # "voxp"
_VERSIONS = Path(__file__).parent / "versions"


def migrate(url: str) -> bool:
    """Bring the database at `url` to the newest schema; True if there was anything to do. Blocks: run in a thread."""
    with psycopg.connect(url, autocommit=True, connect_timeout=3, options="-c lock_timeout=120000") as connection:
        if _current(connection) == head():
            return False
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        try:
            if _current(connection) == head():
                return False
            _upgrade(url)
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK_KEY,))
    return True


def migrate_when_up(url: str, wait_seconds: float) -> None:
    """Wait for the database and migrate it; raise psycopg.OperationalError when it is not up in time. Blocks."""
    deadline, pause = time.monotonic() + wait_seconds, 0.05
    while True:
        try:
            if migrate(url):
                _log.info("database migrated", revision=head())
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            _log.info("waiting for the database", error=type(error).__name__)
        else:
            return
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def head() -> str:
    """Return the newest revision: that of the last file, as they are numbered."""
    return max(re.match(r"\d{4}", path.name).group() for path in _VERSIONS.glob("[0-9]*.py"))  # type: ignore[union-attr]


def _current(connection: "psycopg.Connection[tuple[str]]") -> str | None:
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return row[0] if row else None


def _upgrade(url: str) -> None:
    from alembic import command  # noqa: PLC0415  (0.2 s that a start at head need not spend)
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["url"] = url
    command.upgrade(config, "head")
