"""Every SQL statement of this slice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.models import api_keys, idempotency_keys
from voxpria_server.kit.db import Database, Row

_COUNT_REQUESTS = """
WITH caller AS (
    SELECT api_keys.id, account_id, mode, scopes, is_sip_enabled,
        COALESCE(requests_per_hour, $3) AS requests_per_hour,
        COALESCE(imports_per_minute, $4) AS imports_per_minute,
        allowed_networks = '{}' OR COALESCE($2::text::inet <<= ANY (allowed_networks), false) AS is_address_allowed,
        COALESCE(last_used_at < statement_timestamp() - interval '1 min', true) AS is_use_untold
    FROM api_keys JOIN accounts ON accounts.id = account_id JOIN plans ON plans.id = plan_id
    WHERE secret_sha256 = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > statement_timestamp())
), counted AS (
    INSERT INTO rate_windows AS held
    SELECT account_id, mode, 'requests', $6::int, date_trunc('second', statement_timestamp()) + interval '1 hour'
    FROM caller WHERE is_address_allowed
    ON CONFLICT (account_id, mode, kind) DO UPDATE SET
        used = excluded.used + CASE WHEN held.resets_at <= statement_timestamp() THEN 0
            ELSE LEAST(held.used, (SELECT requests_per_hour FROM caller)) END,
        resets_at = CASE WHEN held.resets_at <= statement_timestamp() THEN excluded.resets_at ELSE held.resets_at END
    RETURNING used, resets_at
)
SELECT caller.*, counted.used, EXTRACT(epoch FROM counted.resets_at)::bigint AS resets_at,
    COALESCE(imports.used, 0) AS imports_used, EXTRACT(epoch FROM imports.resets_at)::bigint AS imports_resets_at,
    EXTRACT(epoch FROM statement_timestamp())::float8 AS now
FROM caller LEFT JOIN counted ON true LEFT JOIN rate_windows AS imports ON $5
    AND (imports.account_id, imports.mode, imports.kind) = (caller.account_id, caller.mode, 'imports')
    AND imports.resets_at > statement_timestamp()
"""
"""One round trip for the key, its account's plan, and the limit. Uses beyond the limit
are forgotten with the next."""

_NOTE_USE = """
UPDATE api_keys SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM api_keys WHERE id = $1 FOR UPDATE SKIP LOCKED)
"""

_COUNT_IMPORTS = sa.text("""
WITH allowed AS (
    SELECT COALESCE(
        (SELECT imports_per_minute FROM accounts JOIN plans ON plans.id = plan_id WHERE accounts.id = :account_id),
        CAST(:per_minute AS int)
    ) AS most
), counted AS (
    INSERT INTO rate_windows AS held
    SELECT :account_id, :mode, 'imports', CAST(:count AS int),
        date_trunc('second', statement_timestamp()) + interval '1 min'
    FROM allowed WHERE :count <= most
    ON CONFLICT (account_id, mode, kind) DO UPDATE SET
        used = excluded.used + CASE WHEN held.resets_at <= statement_timestamp() THEN 0 ELSE held.used END,
        resets_at = CASE WHEN held.resets_at <= statement_timestamp() THEN excluded.resets_at ELSE held.resets_at END
    WHERE held.resets_at <= statement_timestamp() OR excluded.used = 0
        OR held.used + excluded.used <= (SELECT most FROM allowed)
    RETURNING used, resets_at
)
SELECT most AS limit, used, EXTRACT(epoch FROM resets_at)::bigint AS resets_at,
    CEIL(EXTRACT(epoch FROM resets_at - statement_timestamp()))::int AS seconds_left
FROM allowed CROSS JOIN counted
""")


@dataclass(frozen=True)
class Claim:
    """A request that has a key: whose, of what, and with which content."""

    account_id: str
    mode: str
    target: str
    key: str
    fingerprint: bytes

    @property
    def name(self) -> str:
        """What makes two requests the same one; also the context of the seal."""
        return "\n".join((self.account_id, self.mode, self.target, self.key))


async def count_requests(
    database: Database,
    secret_sha256: bytes,
    count: int,
    *,
    address: str | None,
    requests_per_hour: int,
    imports_per_minute: int,
    counts_imports: bool,
) -> asyncpg.Record | None:
    """Return the key, unless it is unknown, revoked or expired; its plan; and the windows, these requests counted.

    The limits given hold where the plan has none. A key that may not be used from `address` counts nothing.
    """
    return await database.fetch_row(
        _COUNT_REQUESTS, secret_sha256, address, requests_per_hour, imports_per_minute, counts_imports, count
    )


async def note_use(database: Database, key_id: str) -> None:
    """Keep that a key is used now; if another request is about to, that will do."""
    await database.fetch_row(_NOTE_USE, key_id)


async def count_imports(conn: AsyncConnection, account_id: str, mode: str, count: int, per_minute: int) -> Row | None:
    """Count imported numbers and return the window; None if they are more than are left, which 0 never is."""
    values = {"account_id": account_id, "mode": mode, "count": count, "per_minute": per_minute}
    return (await conn.execute(_COUNT_IMPORTS, values)).one_or_none()


class ClaimedElsewhereError(Exception):
    """A transaction that is not over has claimed the same idempotency key."""


async def take_claim(conn: AsyncConnection, claim: Claim, kept_hours: int) -> Row | None:
    """Claim an idempotency key for this transaction; None if that is done, else what is kept of the one before.

    Raises ClaimedElsewhereError instead of waiting: a lock of the key's own, held as long as the claim, tells without.
    A row too old to be kept is taken over.
    """
    since = sa.func.now() - timedelta(hours=kept_hours)
    values: dict[str, sa.ColumnElement[Any]] = {name: sa.literal(value) for name, value in _names(claim).items()}
    values |= {"fingerprint": sa.literal(claim.fingerprint), "created_at": sa.func.now()}
    is_free = sa.func.pg_try_advisory_xact_lock(sa.func.hashtextextended(claim.name, 0))
    given = sa.select(*values.values()).where(is_free)
    taken = insert(idempotency_keys).from_select(list(values), given)
    taken = taken.on_conflict_do_update(
        index_elements=list(idempotency_keys.primary_key),
        set_={"fingerprint": claim.fingerprint, "sealed_answer": None, "created_at": sa.func.now()},
        where=idempotency_keys.c.created_at <= since,
    )
    if (await conn.execute(taken.returning(sa.true()))).one_or_none() is not None:
        return None
    row = await find_kept(conn, claim, kept_hours)
    if row is None:
        raise ClaimedElsewhereError
    return row


async def find_kept(conn: AsyncConnection, claim: Claim, kept_hours: int) -> Row | None:
    """Return what is kept of the request of a key that was answered before, if one was."""
    columns, since = idempotency_keys.c, sa.func.now() - timedelta(hours=kept_hours)
    kept = sa.select(columns.fingerprint, columns.sealed_answer).where(*_is(claim), columns.created_at > since)
    return (await conn.execute(kept)).one_or_none()


async def keep_answer(conn: AsyncConnection, claim: Claim, sealed: bytes) -> None:
    """Write the answer into the row of a claim."""
    await conn.execute(sa.update(idempotency_keys).where(*_is(claim)).values(sealed_answer=sealed))


async def delete_answers(conn: AsyncConnection, kept_hours: int, most: int) -> int:
    """Delete answers that are kept no longer; return how many."""
    columns = idempotency_keys.c
    row = sa.tuple_(columns.account_id, columns.mode, columns.target, columns.key)
    old = sa.select(columns.account_id, columns.mode, columns.target, columns.key)
    old = old.where(columns.created_at <= sa.func.now() - timedelta(hours=kept_hours)).limit(most)
    statement = sa.delete(idempotency_keys).where(row.in_(old.with_for_update(skip_locked=True)))
    return (await conn.execute(statement)).rowcount


def _names(claim: Claim) -> dict[str, str]:
    return {"account_id": claim.account_id, "mode": claim.mode, "target": claim.target, "key": claim.key}


def _is(claim: Claim) -> list[sa.ColumnElement[bool]]:
    return [idempotency_keys.c[name] == value for name, value in _names(claim).items()]


async def add_key(conn: AsyncConnection, values: Mapping[str, object]) -> Row:
    """Add a key and return it."""
    row: Row = (await conn.execute(sa.insert(api_keys).values(values).returning(api_keys))).one()
    return row


async def add_key_if_missing(conn: AsyncConnection, values: Mapping[str, object]) -> None:
    """Add a key, if its secret is not there."""
    await conn.execute(insert(api_keys).values(values).on_conflict_do_nothing(index_elements=["secret_sha256"]))


async def find_key(conn: AsyncConnection, key_id: str, *, lock: bool = False) -> Row | None:
    """Return a key, of whatever account: for its operator."""
    statement = sa.select(api_keys).where(api_keys.c.id == key_id)
    return (await conn.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def list_keys(conn: AsyncConnection, account_id: str) -> Sequence[Row]:
    """Return an account's keys of both modes, newest first."""
    statement = sa.select(api_keys).where(api_keys.c.account_id == account_id)
    return (await conn.execute(statement.order_by(api_keys.c.id.desc()))).all()


async def update_key(conn: AsyncConnection, key_id: str, values: Mapping[str, object]) -> Row:
    """Change a key and return it as it now is."""
    statement = sa.update(api_keys).where(api_keys.c.id == key_id).values(values)
    row: Row = (await conn.execute(statement.returning(api_keys))).one()
    return row
