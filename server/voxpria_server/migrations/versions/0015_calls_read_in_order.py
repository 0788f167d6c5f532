"""Pages of the call log are read in the order of an index whatever the filter; a walk only finds where they begin.

`docs/decisions/0005-the-call-log-counts-as-it-goes.md` says how. In place of 0003's functions.
"""

from alembic import op

revision = "0015"
down_revision = "0014"

KINDS = """
    (SELECT direction, status
     FROM unnest(ARRAY['inbound', 'outbound']) AS direction,
          unnest(ARRAY['in-progress', 'completed', 'failed', 'no-answer', 'busy', 'canceled']) AS status
     WHERE (f.direction IS NULL OR direction = f.direction) AND (f.status IS NULL OR status = f.status)) AS kind
"""
"""Every direction and status that a filter leaves: each is a stretch of an index, in order of time."""


def _of_kinds(number: str) -> str:
    return f"""
            SELECT c.id FROM {KINDS} CROSS JOIN LATERAL (
                SELECT id, started_at FROM calls
                WHERE account_id = f.account_id AND mode = f.mode {number}
                    AND direction = kind.direction AND status = kind.status
                    AND started_at >= lo AND started_at < hi AND (below IS NULL OR id < below)
                ORDER BY started_at DESC, id DESC LIMIT skip + take) AS c
            ORDER BY c.started_at DESC, c.id DESC OFFSET skip LIMIT take"""  # noqa: S608  (constants only)


def _of_all(number: str) -> str:
    return f"""
            SELECT id FROM calls
            WHERE account_id = f.account_id AND mode = f.mode {number}
                AND started_at >= lo AND started_at < hi AND (below IS NULL OR id < below)
            ORDER BY started_at DESC, id DESC OFFSET skip LIMIT take"""  # noqa: S608  (constants only)


NUMBER = "AND phone_number = f.phone_number"

READ = f"""
CREATE OR REPLACE FUNCTION voxpria_read_calls(
    f voxpria_call_filter, lo timestamptz, hi timestamptz, below text, skip bigint, take int
) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF f.direction IS NULL AND f.status IS NULL THEN
        IF f.phone_number IS NULL THEN
            RETURN ARRAY({_of_all("")});
        END IF;
        RETURN ARRAY({_of_all(NUMBER)});
    END IF;
    IF f.phone_number IS NULL THEN
        RETURN ARRAY({_of_kinds("")});
    END IF;
    RETURN ARRAY({_of_kinds(NUMBER)});
END
$$
"""

SEEK = """
CREATE FUNCTION voxpria_seek_calls(
    f voxpria_call_filter, of_level text, lo timestamptz, INOUT hi timestamptz, INOUT skip bigint
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    finest CONSTANT text := CASE WHEN f.phone_number IS NULL THEN 'hour' ELSE 'day' END;
    found record;
BEGIN
    FOR found IN SELECT bucket, n FROM voxpria_call_buckets(f, of_level, lo, hi) LOOP
        IF skip >= found.n THEN
            skip := skip - found.n;
            CONTINUE;
        END IF;
        hi := (found.bucket AT TIME ZONE 'UTC' + ('1 ' || of_level)::interval) AT TIME ZONE 'UTC';
        IF of_level <> finest THEN
            SELECT s.hi, s.skip INTO hi, skip FROM voxpria_seek_calls(
                f, CASE of_level WHEN 'month' THEN 'day' ELSE 'hour' END, found.bucket, hi, skip) AS s;
        END IF;
        RETURN;
    END LOOP;
    hi := lo;
END
$$
"""
"""Find where a page begins: the end of the hour (of a number: the day) that its first row lies in, and how many rows of
that are to be skipped. Where the page lies behind the range, nothing is left of it.
"""

PAGE = """
CREATE OR REPLACE FUNCTION voxpria_page_of_calls(
    f voxpria_call_filter, levels text[], los timestamptz[], his timestamptz[], below text, skip bigint, take int
) RETURNS text[] LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids text[] := '{}';
    fresh text[];
    hi timestamptz;
    past text;
BEGIN
    FOR i IN 1..coalesce(cardinality(levels), 0) LOOP
        EXIT WHEN take = 0;
        hi := his[i];
        past := CASE WHEN i = 1 THEN below END;
        IF levels[i] <> 'call' AND skip > 0 THEN
            SELECT s.hi, s.skip INTO hi, skip FROM voxpria_seek_calls(f, levels[i], los[i], hi, skip) AS s;
            CONTINUE WHEN hi = los[i];
        END IF;
        fresh := voxpria_read_calls(f, los[i], hi, past, skip, take);
        IF cardinality(fresh) = 0 AND skip > 0 THEN
            skip := skip - cardinality(voxpria_read_calls(f, los[i], hi, past, 0, least(skip, 2147483647)::int));
            CONTINUE;
        END IF;
        skip := 0;
        take := take - cardinality(fresh);
        ids := ids || fresh;
    END LOOP;
    RETURN ids;
END
$$
"""


def upgrade() -> None:
    """Go up to this revision."""
    kind = ["direction", "status", "started_at", "id"]
    op.create_index("ix_calls_of_kind", "calls", ["account_id", "mode", *kind])
    op.create_index("ix_calls_of_number_and_kind", "calls", ["account_id", "mode", "phone_number", *kind])
    op.execute("DROP FUNCTION voxpria_walk_calls")
    for function in (READ, SEEK, PAGE):
        op.execute(function)
