"""How many events and deliveries there are, kept as they come and go: totals of their lists at flat cost.

As the counts of calls: by triggers, once a statement, each transaction in a slot of its own (0003).
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

ADD = """
CREATE FUNCTION voxpria_tally(ofs text[], days date[], ns bigint[]) RETURNS void LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    mine smallint := nullif(current_setting('voxpria.count_slot', true), '');
BEGIN
    IF mine IS NULL THEN
        mine := voxpria_take_count_slot();
        PERFORM set_config('voxpria.count_slot', mine::text, true);
    END IF;
    MERGE INTO tallies t
    USING (
        SELECT of, day, sum(n) AS n FROM unnest(ofs, days, ns) AS given (of, day, n)
        GROUP BY of, day HAVING sum(n) <> 0
    ) AS d ON t.of = d.of AND t.day = d.day AND t.slot = mine
    WHEN MATCHED AND t.n + d.n = 0 THEN DELETE
    WHEN MATCHED THEN UPDATE SET n = t.n + d.n
    WHEN NOT MATCHED THEN INSERT (of, day, slot, n) VALUES (d.of, d.day, mine, d.n);
END
$$
"""

_EVENTS = """
SELECT concat_ws(' ', account_id, mode, listed) AS of, (created_at AT TIME ZONE 'UTC')::date AS day, {sign} AS n
FROM {table} CROSS JOIN LATERAL unnest(ARRAY[NULL, type]) AS listed WHERE NOT is_test
"""
_DELIVERIES = "SELECT webhook_id AS of, DATE 'epoch' AS day, {sign} AS n FROM {table}"
COUNTED = {"events": _EVENTS, "webhook_deliveries": _DELIVERIES}
"""What a row counts in: an event with all of its account and mode, and with those of its type; a delivery with those of
its webhook."""

_CHANGED = {"events": ("INSERT", "DELETE", "UPDATE"), "webhook_deliveries": ("INSERT", "DELETE")}
"""A delivery is changed with every attempt, and never becomes another webhook's."""

_SIDES = {"INSERT": (("new_rows", 1),), "DELETE": (("old_rows", -1),), "UPDATE": (("new_rows", 1), ("old_rows", -1))}
_TABLES = {"new_rows": "NEW TABLE AS new_rows", "old_rows": "OLD TABLE AS old_rows"}


def upgrade() -> None:
    """Go up to this revision; what is there is counted."""
    op.create_table(
        "tallies",
        sa.Column("of", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.execute(ADD)
    for table, counted in COUNTED.items():
        op.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        changes = counted.format(table=table, sign=1)
        op.execute(f"INSERT INTO tallies (of, day, slot, n) SELECT of, day, 0, sum(n) FROM ({changes}) c GROUP BY 1, 2")  # noqa: S608
        for event in _CHANGED[table]:
            _count(table, counted, event, _SIDES[event])


def _count(table: str, counted: str, event: str, sides: tuple[tuple[str, int], ...]) -> None:
    name = f"voxpria_tally_{table}_{event.lower()}"
    changes = " UNION ALL ".join(counted.format(table=rows, sign=sign) for rows, sign in sides)
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$"  # noqa: S608  (constants only)
        " DECLARE ofs text[]; days date[]; ns bigint[]; BEGIN"
        f" SELECT array_agg(of), array_agg(day), array_agg(n) INTO ofs, days, ns"
        f" FROM (SELECT of, day, sum(n) AS n FROM ({changes}) AS each GROUP BY of, day HAVING sum(n) <> 0) AS c;"
        " IF ofs IS NOT NULL THEN PERFORM voxpria_tally(ofs, days, ns); END IF;"
        " RETURN NULL; END $$"
    )
    tables = " ".join(_TABLES[rows] for rows, _ in sides)
    op.execute(
        f"CREATE TRIGGER tally_{event.lower()} AFTER {event} ON {table}"
        f" REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
    )
