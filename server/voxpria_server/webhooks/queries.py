"""Every SQL statement of this slice; account and mode are applied here.

The statements of a job (`…_of_job`) take a delivery's id alone: the job was deferred with the delivery.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from voxpria_server.auth.service import Caller
from voxpria_server.kit.db import Database, Row, to_second
from voxpria_server.kit.pagination import PageQuery
from voxpria_server.webhooks.models import events, tallies, webhook_deliveries, webhooks
from voxpria_server.webhooks.sender import Outcome

_hook, _event, _delivery = webhooks.c, events.c, webhook_deliveries.c
_NO_DAY = date(1970, 1, 1)

_SHOWN = (
    "id, url, events, status, disabled_reason,"
    f" {to_second('disabled_at', 'failing_since', 'created_at', 'updated_at')},"
    " CASE WHEN former_secrets_expire_at[1] > now() THEN date_trunc('second', former_secrets_expire_at[1]) END"
    " AS former_secret_expires_at"
)
"""A webhook as `schemas.Webhook` has it."""
_READ = f"SELECT {_SHOWN} FROM webhooks WHERE account_id = $1 AND mode = $2 AND id = $3"  # noqa: S608  (constants)

_DELIVERY = """
id, webhook_id, event_id, status, next_attempt_at, created_at,
(SELECT type FROM events WHERE events.id = event_id) AS type,
coalesce((
    SELECT json_agg(json_build_object(
        'at', to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'number', number,
        'duration_ms', duration_ms, 'status_code', status_code, 'error', error, 'response', response) ORDER BY number)
    FROM webhook_attempts WHERE delivery_id = webhook_deliveries.id
), '[]')::text AS attempts
"""
_READ_DELIVERY = f"SELECT {_DELIVERY} FROM webhook_deliveries WHERE webhook_id = $1 AND id = $2"  # noqa: S608  (constants)

_READ_EVENT = "SELECT body FROM events WHERE account_id = $1 AND mode = $2 AND id = $3 AND created_at >= $4"

_COUNT_EVENTS = """
SELECT coalesce(sum(n), 0)::bigint FROM tallies
WHERE of = concat_ws(' ', $1, $2, $4) AND day >= ($3 AT TIME ZONE 'UTC')::date
"""
_COUNT_DELIVERIES = "SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE of = $1"

_SUBSCRIBERS = sa.text("""
SELECT id, account_id, mode, events FROM webhooks
WHERE (account_id, mode) IN (SELECT * FROM unnest(CAST(:account_ids AS text[]), CAST(:modes AS text[])))
    AND status = 'active'
ORDER BY id FOR KEY SHARE
""")

_ADD_EVENTS = sa.text("""
WITH told AS (
    INSERT INTO events (id, account_id, mode, type, body, is_test, created_at, traceparent)
    SELECT * FROM unnest(
        CAST(:ids AS text[]), CAST(:account_ids AS text[]), CAST(:modes AS text[]), CAST(:types AS text[]),
        CAST(:bodies AS bytea[]), CAST(:are_tests AS boolean[]), CAST(:created_at AS timestamptz[]),
        CAST(:traceparents AS text[]))
), sent AS (
    INSERT INTO webhook_deliveries (id, webhook_id, event_id, status, attempts, next_attempt_at, created_at)
    SELECT id, webhook_id, event_id, 'pending', 0, now(), now()
    FROM unnest(CAST(:delivery_ids AS text[]), CAST(:webhook_ids AS text[]), CAST(:event_ids AS text[]))
        AS given (id, webhook_id, event_id)
    RETURNING 1
)
SELECT pg_notify(:channel, '') FROM sent LIMIT 1
""")

_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id, webhook_id, event_id, turn_at, next_attempt_at FROM webhook_deliveries
    WHERE status = 'pending' AND next_attempt_at <= statement_timestamp()
        AND (claimed_until IS NULL OR claimed_until <= statement_timestamp())
    ORDER BY next_attempt_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
), asked AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY account_id, mode, needs_turn ORDER BY next_attempt_at, id) AS position
    FROM (
        SELECT due.id, due.turn_at, due.next_attempt_at, w.account_id, w.mode,
            coalesce(p.webhook_attempts_per_minute, $3)::bigint AS most,
            w.status <> 'active' AND NOT e.is_test AS is_given_up,
            (w.status = 'active' OR e.is_test) AND NOT coalesce(statement_timestamp() >= due.turn_at
                AND statement_timestamp() < due.turn_at + interval '1 minute', false) AS needs_turn
        FROM due JOIN webhooks w ON w.id = due.webhook_id JOIN events e ON e.id = due.event_id
        JOIN accounts a ON a.id = w.account_id JOIN plans p ON p.id = a.plan_id
    ) AS found
), wanted AS (
    SELECT account_id, mode, most, count(*) AS n FROM asked WHERE needs_turn GROUP BY account_id, mode, most
), taken AS (
    INSERT INTO webhook_turns AS t (account_id, mode, began_at, taken)
    SELECT account_id, mode, statement_timestamp(), n FROM wanted ORDER BY account_id, mode
    ON CONFLICT (account_id, mode) DO UPDATE SET
        (began_at, taken) = (
            SELECT CASE WHEN is_on THEN t.began_at ELSE statement_timestamp() END,
                CASE WHEN is_on THEN t.taken ELSE 0 END + excluded.taken
            FROM (
                SELECT statement_timestamp() < t.began_at + (t.taken / most + 1) * interval '1 minute' AS is_on
                FROM wanted WHERE (wanted.account_id, wanted.mode) = (t.account_id, t.mode)
            ) AS minute
        )
    RETURNING account_id, mode, began_at, taken
), given AS (
    SELECT asked.id, asked.is_given_up,
        CASE WHEN asked.needs_turn
             THEN began_at + (taken - n + position - 1) / wanted.most * interval '1 minute' ELSE turn_at END AS turn_at
    FROM asked LEFT JOIN (wanted JOIN taken USING (account_id, mode)) USING (account_id, mode)
), changed AS (
    UPDATE webhook_deliveries AS d SET
        turn_at = given.turn_at,
        status = CASE WHEN is_given_up THEN 'failed' ELSE 'pending' END,
        next_attempt_at = CASE WHEN NOT is_given_up THEN greatest(d.next_attempt_at, given.turn_at) END,
        claimed_until = CASE WHEN NOT is_given_up AND given.turn_at <= statement_timestamp()
                             THEN statement_timestamp() + $2::interval END
    FROM given WHERE d.id = given.id
    RETURNING d.id, d.webhook_id, d.event_id, d.attempts, d.turn_at, d.claimed_until
)
SELECT d.id, d.claimed_until IS NOT NULL AS is_claimed, d.webhook_id, d.event_id, d.attempts, d.turn_at, e.body,
    e.is_test, e.traceparent,
    w.account_id, w.mode, w.url, w.sealed_secret, w.former_sealed_secrets, w.former_secrets_expire_at,
    w.failing_since
FROM changed AS d JOIN webhooks w ON w.id = d.webhook_id
LEFT JOIN events e ON e.id = d.event_id AND d.claimed_until IS NOT NULL
ORDER BY d.id
"""
"""Each attempt takes the next turn of its account and mode. The first so many turns lie in the minute that began with
the first of them, the next in the minute after it, and so on. A minute whose turns are not all taken ends with it: what
is over is not saved up. A turn that was given is good for its minute. $3 holds where the plan says nothing.
"""

_WAIT_UNTIL = """
UPDATE webhook_deliveries AS d SET next_attempt_at = given.at, claimed_until = NULL
FROM unnest($1::text[], $2::timestamptz[]) AS given (id, at) WHERE d.id = given.id AND d.status = 'pending'
"""

_RECORD = """
WITH told AS (
    SELECT * FROM unnest(
        $1::text[], $2::int[], $3::timestamptz[], $4::int[], $5::int[], $6::text[], $7::text[], $8::text[],
        $9::timestamptz[]
    ) AS t (id, number, started_at, duration_ms, status_code, error, response, status, next_at)
), held AS MATERIALIZED (
    SELECT d.id AS held_id FROM webhook_deliveries d JOIN told ON told.id = d.id AND told.number = d.attempts + 1
    WHERE d.status = 'pending' ORDER BY d.id FOR UPDATE OF d
), added AS (
    INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_ms, status_code, error, response)
    SELECT id, number, started_at, duration_ms, status_code, error, response FROM told JOIN held ON held_id = id
    ON CONFLICT DO NOTHING
), settled AS (
    UPDATE webhook_deliveries AS d SET attempts = told.number, status = told.status, next_attempt_at = told.next_at,
        turn_at = NULL, claimed_until = NULL
    FROM told JOIN held ON held_id = id WHERE d.id = told.id
), standing AS (
    SELECT s.*, w.status = 'active' AND coalesce(w.failing_since <= s.failing_before, false) AS is_over
    FROM unnest($10::text[], $11::boolean[], $12::timestamptz[], $13::timestamptz[], $14::text[])
        AS s (id, is_reset, since, failing_before, reason)
    JOIN webhooks w ON w.id = s.id
)
UPDATE webhooks AS w SET
    failing_since = CASE WHEN s.is_reset OR w.failing_since IS NULL THEN s.since ELSE w.failing_since END,
    status = CASE WHEN s.is_over THEN 'disabled' ELSE w.status END,
    disabled_at = CASE WHEN s.is_over THEN statement_timestamp() ELSE w.disabled_at END,
    disabled_reason = CASE WHEN s.is_over THEN s.reason ELSE w.disabled_reason END
FROM standing s
WHERE w.id = s.id AND (s.is_over OR s.is_reset OR (w.status = 'active' AND w.failing_since IS NULL))
RETURNING CASE WHEN s.is_over THEN w.id END AS id
"""
"""One statement, so that attempt, outcome and the webhook's standing are there together or not at all."""


@dataclass(frozen=True)
class Attempt:
    """An attempt that was made: of which delivery (a row of `claim_due`), and what came of it."""

    delivery: asyncpg.Record
    number: int
    started_at: datetime
    outcome: Outcome
    next_at: datetime | None
    """When the next one is made, if one is."""

    @property
    def status(self) -> str:
        """What the delivery's status is now."""
        if self.next_at is not None:
            return "pending"
        return "succeeded" if self.outcome.is_success else "failed"


@dataclass(frozen=True)
class Standing:
    """What attempts say of a webhook."""

    webhook_id: str
    is_reset: bool
    """True if one succeeded: what failed before that is forgiven."""
    since: datetime | None = None
    """The first failure after the last success, among these."""
    failing_before: datetime | None = None
    """A webhook that has failed since before that is disabled, for this reason."""
    reason: str | None = None


def _owner(caller: Caller) -> tuple[str, str]:
    return caller.account_id, caller.mode


def _mine(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.and_(_hook.account_id == caller.account_id, _hook.mode == caller.mode)


async def count(conn: AsyncConnection, caller: Caller) -> int:
    """Return how many webhooks there are."""
    return int((await conn.execute(sa.select(sa.func.count()).where(_mine(caller)))).scalar_one())


async def list_page(database: Database, caller: Caller, page: PageQuery) -> tuple[list[dict[str, Any]], int]:
    """Return one page, newest first, and how many there are."""
    return await page.fetch(database, "webhook", _SHOWN, "webhooks", "account_id = $1 AND mode = $2", _owner(caller))


async def read(database: Database, caller: Caller, webhook_id: str) -> asyncpg.Record | None:
    """Return what is shown of the webhook."""
    return await database.fetch_row(_READ, *_owner(caller), webhook_id)


async def find(conn: AsyncConnection, caller: Caller, webhook_id: str, *, lock: bool = False) -> Row | None:
    """Return the webhook; `lock` it until the transaction ends, if wanted."""
    statement = sa.select(webhooks).where(_mine(caller), _hook.id == webhook_id)
    return (await conn.execute(statement.with_for_update(key_share=True) if lock else statement)).one_or_none()


async def add(conn: AsyncConnection, values: Mapping[str, Any]) -> Row:
    """Add a webhook."""
    row: Row = (await conn.execute(sa.insert(webhooks).values(**values).returning(webhooks))).one()
    return row


async def update(conn: AsyncConnection, caller: Caller, webhook_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change a webhook."""
    statement = sa.update(webhooks).where(_mine(caller), _hook.id == webhook_id).values(**values).returning(webhooks)
    row: Row | None = (await conn.execute(statement)).one_or_none()
    return row


async def delete(conn: AsyncConnection, caller: Caller, webhook_id: str) -> bool:
    """Remove a webhook with its deliveries; False if there is none."""
    statement = sa.delete(webhooks).where(_mine(caller), _hook.id == webhook_id).returning(_hook.id)
    return (await conn.execute(statement)).one_or_none() is not None


async def subscribers(conn: AsyncConnection, owners: Collection[tuple[str, str]]) -> list[Row]:
    """Return the active webhooks of accounts, each in a mode; none of them goes away before the transaction ends."""
    account_ids, modes = zip(*owners, strict=True)
    values = {"account_ids": list(account_ids), "modes": list(modes)}
    return list(await conn.execute(_SUBSCRIBERS, values))


async def add_events(
    conn: AsyncConnection,
    told: Sequence[Mapping[str, Any]],
    deliveries: Sequence[tuple[str, str, str]],
    channel: str,
) -> None:
    """Write events, and deliveries (their id, webhook's and event's) that are due at once; tell `channel` of these."""
    names = ("id", "account_id", "mode", "type", "body", "is_test", "created_at", "traceparent")
    columns = ([one[name] for one in told] for name in names)
    ids, account_ids, modes, types, bodies, are_tests, created_at, traceparents = columns
    delivery_ids, webhook_ids, event_ids = ([row[n] for row in deliveries] for n in range(3))
    values = {
        "ids": ids,
        "account_ids": account_ids,
        "modes": modes,
        "types": types,
        "bodies": bodies,
        "are_tests": are_tests,
        "created_at": created_at,
        "traceparents": traceparents,
        "channel": channel,
        "delivery_ids": delivery_ids,
        "webhook_ids": webhook_ids,
        "event_ids": event_ids,
    }
    await conn.execute(_ADD_EVENTS, values)


async def list_events(
    database: Database, caller: Caller, page: PageQuery, since: datetime, event_type: str | None
) -> tuple[list[bytes], int]:
    """Return one page of what happened since a day (UTC), as it was sent, newest first, and how much there is."""
    wanted = "account_id = $1 AND mode = $2 AND created_at >= $3 AND NOT is_test AND ($4::text IS NULL OR type = $4)"
    args = [*_owner(caller), since, event_type]
    rows, total = await page.fetch(database, "evt", "id, body", "events", wanted, args, count=_COUNT_EVENTS)
    return [row["body"] for row in rows], total


async def read_event(database: Database, caller: Caller, event_id: str, since: datetime) -> bytes | None:
    """Return an event since a day, as it was sent; one that was sent as a test too."""
    row = await database.fetch_row(_READ_EVENT, *_owner(caller), event_id, since)
    return row and row["body"]


async def delete_events(conn: AsyncConnection, before: datetime, limit: int) -> int:
    """Remove at most `limit` events older than `before`, whoever's, with their deliveries; return how many."""
    old = sa.select(_event.id).where(_event.created_at < before).limit(limit)
    gone = await conn.execute(sa.delete(events).where(_event.id.in_(old)).returning(_event.id))
    return len(gone.all())


async def list_deliveries(database: Database, webhook_id: str, page: PageQuery) -> tuple[list[dict[str, Any]], int]:
    """Return one page of the deliveries of a webhook that is the caller's, newest first, and how many there are.

    Each with the type of its event, and its attempts in order, as JSON.
    """
    return await page.fetch(
        database, "dlv", _DELIVERY, "webhook_deliveries", "webhook_id = $1", [webhook_id], count=_COUNT_DELIVERIES
    )


async def read_delivery(database: Database, webhook_id: str, delivery_id: str) -> asyncpg.Record | None:
    """Return a delivery, as in the list, of a webhook that is the caller's."""
    return await database.fetch_row(_READ_DELIVERY, webhook_id, delivery_id)


async def delete_tallies(conn: AsyncConnection, before: date) -> None:
    """Remove the counts of days that are listed no more, and those of webhooks that are gone."""
    is_hook = tallies.c.of.startswith("webhook_", autoescape=True)
    is_gone = sa.and_(tallies.c.day == _NO_DAY, is_hook, ~sa.exists().where(_hook.id == tallies.c.of))
    is_old = sa.and_(tallies.c.day != _NO_DAY, tallies.c.day < before)
    await conn.execute(sa.delete(tallies).where(sa.or_(is_gone, is_old)))


async def find_delivery(conn: AsyncConnection, caller: Caller, webhook_id: str, delivery_id: str) -> Row | None:
    """Return a webhook's delivery with the type of its event."""
    statement = sa.select(*_delivery, _event.type).select_from(webhook_deliveries).join(webhooks).join(events)
    wanted = [_mine(caller), _hook.id == webhook_id, _delivery.id == delivery_id]
    return (await conn.execute(statement.where(*wanted))).one_or_none()


async def count_missed(conn: AsyncConnection, webhook: Row, since: datetime) -> int:
    """Return how many events since a time were for a webhook of the caller's, and never reached it."""
    missed = sa.select(_event.id).where(*_missed_by(webhook, since)).subquery()
    return int((await conn.execute(sa.select(sa.func.count()).select_from(missed))).scalar_one())


async def missed_events_of_job(
    conn: AsyncConnection, webhook: Row, since: datetime, *, after: str, limit: int
) -> list[str]:
    """Return the ids of events since a time that were for a webhook and never reached it, oldest first."""
    statement = sa.select(_event.id).where(*_missed_by(webhook, since), _event.id > after)
    return list((await conn.execute(statement.order_by(_event.id).limit(limit))).scalars())


def _missed_by(webhook: Row, since: datetime) -> list[sa.ColumnElement[bool]]:
    """Say, in SQL, that an event was for the webhook, and that no delivery of it succeeded or is under way."""
    reached = sa.exists().where(
        _delivery.webhook_id == webhook.id, _delivery.event_id == _event.id, _delivery.status != "failed"
    )
    return [
        _event.account_id == webhook.account_id,
        _event.mode == webhook.mode,
        _event.created_at >= since,
        _event.is_test.is_(False),
        _event.type.in_(webhook.events),
        sa.not_(reached),
    ]


async def claim_due(database: Database, limit: int, lease: timedelta, attempts_per_minute: int) -> list[asyncpg.Record]:
    """Look at what is due, claim what may go now (`is_claimed`), and have the rest wait for its turn.

    Returns all that was looked at, longest due first, what is claimed with all that an attempt needs. What is due to
    a disabled webhook is given up. An account's turns are exact, whichever processes claim.
    """
    return await database.fetch(_CLAIM, limit, lease, attempts_per_minute)


async def wait_until(database: Database, times: Mapping[str, datetime]) -> None:
    """Give up the claims of deliveries, which are due again at these times; their turns stay."""
    if times:
        await database.fetch(_WAIT_UNTIL, list(times), list(times.values()))


async def record(database: Database, attempts: Sequence[Attempt], standings: Sequence[Standing]) -> list[str]:
    """Write attempts down, each once however often it is told, with what they say of webhooks.

    Returns the ids of webhooks that are disabled by it.
    """
    outcomes = [attempt.outcome for attempt in attempts]
    rows = await database.fetch(
        _RECORD,
        [attempt.delivery["id"] for attempt in attempts],
        [attempt.number for attempt in attempts],
        [attempt.started_at for attempt in attempts],
        [outcome.duration_ms for outcome in outcomes],
        [outcome.status_code for outcome in outcomes],
        [outcome.error for outcome in outcomes],
        [outcome.response for outcome in outcomes],
        [attempt.status for attempt in attempts],
        [attempt.next_at for attempt in attempts],
        [standing.webhook_id for standing in standings],
        [standing.is_reset for standing in standings],
        [standing.since for standing in standings],
        [standing.failing_before for standing in standings],
        [standing.reason for standing in standings],
    )
    return [row["id"] for row in rows if row["id"] is not None]


async def find_of_job(conn: AsyncConnection, webhook_id: str) -> Row | None:
    """Return a webhook."""
    return (await conn.execute(sa.select(webhooks).where(_hook.id == webhook_id))).one_or_none()
