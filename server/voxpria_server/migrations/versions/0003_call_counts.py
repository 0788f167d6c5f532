"""How many calls there are, kept as they change; and the pages of the call log found by it.

`docs/decisions/0005-the-call-log-counts-as-it-goes.md` says why and how.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SCOPES = """
    (VALUES ('', 'month'), ('', 'day'), ('', 'hour'), (NULL, 'month'), (NULL, 'day')) AS scope (phone_number, level)
"""
"""What a call is counted in: with all calls of its account and mode (''), and with those of its number (NULL)."""

ADD = f"""
CREATE FUNCTION voxpria_add_call_counts(changes voxpria_call_change[]) RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    mine smallint := nullif(current_setting('voxpria.count_slot', true), '');
BEGIN
    IF mine IS NULL THEN
        mine := voxpria_take_count_slot();
        PERFORM set_config('voxpria.count_slot', mine::text, true);
    END IF;
    MERGE INTO call_counts c
    USING (
        SELECT account_id, mode, coalesce(scope.phone_number, changed.phone_number) AS phone_number, level,
               date_trunc(level, hour, 'UTC') AS bucket, direction, status, sum(n) AS n
        FROM unnest(changes) AS changed CROSS JOIN {SCOPES}
        WHERE scope.phone_number = '' OR changed.phone_number <> ''
        GROUP BY 1, 2, 3, 4, 5, 6, 7
        HAVING sum(n) <> 0
    ) AS d
    ON c.account_id = d.account_id AND c.mode = d.mode AND c.phone_number = d.phone_number AND c.level = d.level
        AND c.bucket = d.bucket AND c.direction = d.direction AND c.status = d.status AND c.slot = mine
    WHEN MATCHED AND c.n + d.n = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET n = c.n + d.n
    WHEN NOT MATCHED THEN
        INSERT (account_id, mode, phone_number, level, bucket, direction, status, slot, n)
        VALUES (d.account_id, d.mode, d.phone_number, d.level, d.bucket, d.direction, d.status, mine, d.n);
END
$$
"""  # noqa: S608  (constants only)

TAKE_SLOT = """
CREATE FUNCTION voxpria_take_count_slot() RETURNS smallint LANGUAGE plpgsql AS $$
DECLARE
    class CONSTANT int := 1668247155;
BEGIN
    FOR slot IN 0..63 LOOP
        IF pg_try_advisory_xact_lock(class, slot) THEN
            RETURN slot;
        END IF;
    END LOOP;
    PERFORM pg_advisory_xact_lock(class, pg_backend_pid() % 64);
    RETURN pg_backend_pid() % 64;
END
$$
"""
"""A transaction has its slot for itself until it ends, so writers of the same hour don't wait for each other, nor
deadlock. The lowest free one, so that there are no more rows than there were writers at once."""

ON_CHANGE = """
CREATE FUNCTION voxpria_calls_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changes voxpria_call_change[];
BEGIN
    CASE TG_OP
    WHEN 'INSERT' THEN
        changes := ARRAY(
            SELECT ROW(account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC'),
                       count(*))::voxpria_call_change
            FROM new_calls
            GROUP BY account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC'));
    WHEN 'DELETE' THEN
        changes := ARRAY(
            SELECT ROW(account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC'),
                       -count(*))::voxpria_call_change
            FROM old_calls
            GROUP BY account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC'));
    ELSE
        changes := ARRAY(
            SELECT ROW(account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC'),
                       sum(n))::voxpria_call_change
            FROM (
                SELECT account_id, mode, phone_number, direction, status, started_at, 1 AS n FROM new_calls
                UNION ALL
                SELECT account_id, mode, phone_number, direction, status, started_at, -1 FROM old_calls
            ) AS both_calls
            GROUP BY account_id, mode, phone_number, direction, status, date_trunc('hour', started_at, 'UTC')
            HAVING sum(n) <> 0);
    END CASE;
    IF cardinality(changes) > 0 THEN
        PERFORM voxpria_add_call_counts(changes);
    END IF;
    RETURN NULL;
END
$$
"""

BUCKETS = """
CREATE FUNCTION voxpria_call_buckets(f voxpria_call_filter, of_level text, lo timestamptz, hi timestamptz)
RETURNS TABLE (bucket timestamptz, n bigint) LANGUAGE sql STABLE AS $$
    SELECT bucket, sum(n)::bigint FROM call_counts
    WHERE account_id = f.account_id AND mode = f.mode AND phone_number = coalesce(f.phone_number, '')
        AND level = of_level AND bucket >= lo AND bucket < hi
        AND (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status)
    GROUP BY bucket HAVING sum(n) <> 0 ORDER BY bucket DESC
$$
"""

COUNT = """
CREATE FUNCTION voxpria_count_calls(f voxpria_call_filter, levels text[], los timestamptz[], his timestamptz[])
RETURNS bigint LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    total bigint := 0;
BEGIN
    FOR i IN 1..coalesce(cardinality(levels), 0) LOOP
        IF levels[i] <> 'call' THEN
            total := total + (SELECT coalesce(sum(n), 0) FROM voxpria_call_buckets(f, levels[i], los[i], his[i]));
        ELSIF f.phone_number IS NULL THEN
            total := total + (
                SELECT count(*) FROM calls
                WHERE account_id = f.account_id AND mode = f.mode AND started_at >= los[i] AND started_at < his[i]
                    AND (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status));
        ELSE
            total := total + (
                SELECT count(*) FROM calls
                WHERE account_id = f.account_id AND mode = f.mode AND phone_number = f.phone_number
                    AND started_at >= los[i] AND started_at < his[i]
                    AND (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status));
        END IF;
    END LOOP;
    RETURN total;
END
$$
"""

READ = """
CREATE FUNCTION voxpria_read_calls(
    f voxpria_call_filter, lo timestamptz, hi timestamptz, below text, skip bigint, take int
) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF f.phone_number IS NULL THEN
        RETURN ARRAY(
            SELECT id FROM calls
            WHERE account_id = f.account_id AND mode = f.mode AND started_at >= lo AND started_at < hi
                AND (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status)
                AND (below IS NULL OR id < below)
            ORDER BY started_at DESC, id DESC OFFSET skip LIMIT take);
    END IF;
    RETURN ARRAY(
        SELECT id FROM calls
        WHERE account_id = f.account_id AND mode = f.mode AND phone_number = f.phone_number
            AND started_at >= lo AND started_at < hi
            AND (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status)
            AND (below IS NULL OR id < below)
        ORDER BY started_at DESC, id DESC OFFSET skip LIMIT take);
END
$$
"""

WALK = """
CREATE FUNCTION voxpria_walk_calls(
    f voxpria_call_filter, of_level text, lo timestamptz, hi timestamptz, INOUT skip bigint, INOUT take int,
    INOUT ids text[]
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    finer CONSTANT text := CASE of_level WHEN 'month' THEN 'day' WHEN 'day' THEN
        CASE WHEN f.phone_number IS NULL THEN 'hour' ELSE 'call' END ELSE 'call' END;
    found record;
    next_bucket timestamptz;
    fresh text[];
BEGIN
    FOR found IN SELECT bucket, n FROM voxpria_call_buckets(f, of_level, lo, hi) LOOP
        EXIT WHEN take = 0;
        IF skip >= found.n THEN
            skip := skip - found.n;
            CONTINUE;
        END IF;
        next_bucket := (found.bucket AT TIME ZONE 'UTC' + ('1 ' || of_level)::interval) AT TIME ZONE 'UTC';
        IF finer = 'call' THEN
            fresh := voxpria_read_calls(f, found.bucket, next_bucket, NULL, skip, take);
            skip := 0;
            take := take - cardinality(fresh);
            ids := ids || fresh;
        ELSE
            SELECT w.skip, w.take, w.ids INTO skip, take, ids
            FROM voxpria_walk_calls(f, finer, found.bucket, next_bucket, skip, take, ids) AS w;
        END IF;
    END LOOP;
END
$$
"""

PAGE = """
CREATE FUNCTION voxpria_page_of_calls(
    f voxpria_call_filter, levels text[], los timestamptz[], his timestamptz[], below text, skip bigint, take int
) RETURNS text[] LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids text[] := '{}';
    fresh text[];
    held bigint;
BEGIN
    FOR i IN 1..coalesce(cardinality(levels), 0) LOOP
        EXIT WHEN take = 0;
        IF levels[i] = 'call' THEN
            fresh := voxpria_read_calls(f, los[i], his[i], CASE WHEN i = 1 THEN below END, skip, take);
            IF cardinality(fresh) = 0 AND skip > 0 THEN
                held := cardinality(voxpria_read_calls(
                    f, los[i], his[i], CASE WHEN i = 1 THEN below END, 0, least(skip, 2147483647)::int));
                skip := skip - held;
            ELSE
                skip := 0;
            END IF;
            take := take - cardinality(fresh);
            ids := ids || fresh;
        ELSE
            SELECT w.skip, w.take, w.ids INTO skip, take, ids
            FROM voxpria_walk_calls(f, levels[i], los[i], his[i], skip, take, ids) AS w;
        END IF;
    END LOOP;
    RETURN ids;
END
$$
"""

BACKFILL = """
WITH hours AS MATERIALIZED (
    SELECT account_id, mode, date_trunc('hour', started_at, 'UTC') AS bucket, direction, status, count(*) AS n
    FROM calls GROUP BY 1, 2, 3, 4, 5
), days AS MATERIALIZED (
    SELECT account_id, mode, phone_number, date_trunc('day', started_at, 'UTC') AS bucket, direction, status,
           count(*) AS n
    FROM calls WHERE phone_number <> '' GROUP BY 1, 2, 3, 4, 5, 6
)
INSERT INTO call_counts (account_id, mode, phone_number, level, bucket, direction, status, slot, n)
SELECT account_id, mode, '', level, date_trunc(level, bucket, 'UTC'), direction, status, 0, sum(n)
FROM hours CROSS JOIN unnest(ARRAY['month', 'day', 'hour']) AS level GROUP BY 1, 2, 3, 4, 5, 6, 7
UNION ALL
SELECT account_id, mode, phone_number, level, date_trunc(level, bucket, 'UTC'), direction, status, 0, sum(n)
FROM days CROSS JOIN unnest(ARRAY['month', 'day']) AS level GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
"""Each call is looked at twice, and the coarser counts are sums of the finer ones."""

KEY = "account_id, mode, phone_number, level, bucket, direction, status, slot"

TABLES_OF = {"INSERT": "NEW TABLE AS new_calls", "DELETE": "OLD TABLE AS old_calls"}
TABLES_OF["UPDATE"] = f"{TABLES_OF['INSERT']} {TABLES_OF['DELETE']}"


def upgrade() -> None:
    """Go up to this revision; calls that are there are counted."""
    op.execute("LOCK TABLE calls IN SHARE ROW EXCLUSIVE MODE")
    _indexes()
    _counts()
    op.execute("SET LOCAL work_mem = '256MB'")
    op.execute(BACKFILL)
    op.execute(f"ALTER TABLE call_counts ADD CONSTRAINT pk_call_counts PRIMARY KEY ({KEY})")
    for event, tables in TABLES_OF.items():
        op.execute(
            f"CREATE TRIGGER calls_count_{event.lower()} AFTER {event} ON calls"
            f" REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION voxpria_calls_changed()"
        )


def _indexes() -> None:
    for old in ("account_id_mode_id", "account_id_mode_phone_number_id", "account_id_mode_started_at"):
        op.drop_index(f"ix_calls_{old}")
    for columns in (["account_id", "mode"], ["account_id", "mode", "phone_number"]):
        columns += ["started_at", "id"]
        op.create_index(f"ix_calls_{'_'.join(columns)}", "calls", columns, postgresql_include=["direction", "status"])


def _counts() -> None:
    op.create_table(
        "call_counts",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("account_id", "mode", "phone_number", "level")),
        sa.Column("bucket", sa.DateTime(timezone=True), nullable=False),
        sa.Column("direction", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.execute(
        "CREATE TYPE voxpria_call_change AS (account_id text, mode text, phone_number text, direction text,"
        " status text, hour timestamptz, n bigint)"
    )
    op.execute(
        "CREATE TYPE voxpria_call_filter AS"
        " (account_id text, mode text, phone_number text, direction text, status text)"
    )
    for function in (TAKE_SLOT, ADD, ON_CHANGE, BUCKETS, COUNT, READ, WALK, PAGE):
        op.execute(function)
