"""How many numbers, trunks and agents there are, kept as they come and go: totals of their lists at flat cost.

As those of events and deliveries, in the same table and by the same function (0016). A number counts in those of its
account and mode, and in those of its trunk, each by status and engine; and in its trunk's whole.
"""

from alembic import op

revision = "0026"
down_revision = "0025"

_NUMBERS = """
SELECT of, DATE 'epoch' AS day, {sign} AS n FROM {table} CROSS JOIN LATERAL (VALUES
    (concat_ws(' ', 'numbers', account_id, mode, status, coalesce(engine, 'none'))),
    (concat_ws(' ', 'numbers on', trunk_id, account_id, mode, status, coalesce(engine, 'none'))),
    (concat_ws(' ', 'numbers on', trunk_id))
) AS counted (of)
"""
_TRUNKS = """
SELECT of, DATE 'epoch' AS day, {sign} AS n FROM {table} CROSS JOIN LATERAL (VALUES
    (concat_ws(' ', 'trunks', account_id, mode)), (concat_ws(' ', 'trunks', account_id, mode, provider))
) AS counted (of)
"""
_AGENTS = "SELECT concat_ws(' ', 'agents', account_id, mode) AS of, DATE 'epoch' AS day, {sign} AS n FROM {table}"

COUNTED = {
    "phone_numbers": (_NUMBERS, ("INSERT", "DELETE", "UPDATE")),
    "trunks": (_TRUNKS, ("INSERT", "DELETE")),
    "agents": (_AGENTS, ("INSERT", "DELETE")),
}
"""What a row counts in, and what changes that: trunk and agent stay in their account, the trunk at its provider."""

COUNT_NUMBERS = """
CREATE FUNCTION voxpria_count_numbers(of text, statuses text[], engines text[]) RETURNS bigint LANGUAGE sql STABLE
AS $$
    SELECT coalesce(sum(n), 0)::bigint FROM tallies WHERE day = DATE 'epoch' AND tallies.of = ANY (ARRAY(
        SELECT concat_ws(' ', $1, status, engine) FROM unnest(statuses) AS status CROSS JOIN unnest(engines) AS engine
    ))
$$
"""

FORGET_TRUNK = """
CREATE FUNCTION voxpria_forget_trunk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM tallies USING gone, unnest(ARRAY['provisioning', 'active', 'inactive']) AS in_status,
        unnest(ARRAY['none', 'elevenlabs', 'openai']) AS of_engine
    WHERE tallies.of IN (
        concat_ws(' ', 'numbers on', gone.id),
        concat_ws(' ', 'numbers on', gone.id, gone.account_id, gone.mode, in_status, of_engine)
    );
    RETURN NULL;
END
$$
"""
"""Nobody else counts on a trunk while it goes: its numbers have gone before it, and new ones wait for its row."""

_SIDES = {"INSERT": (("new_rows", 1),), "DELETE": (("old_rows", -1),), "UPDATE": (("new_rows", 1), ("old_rows", -1))}
_TABLES = {"new_rows": "NEW TABLE AS new_rows", "old_rows": "OLD TABLE AS old_rows"}


def upgrade() -> None:
    """Go up to this revision; what is there is counted."""
    for table, (counted, events) in COUNTED.items():
        op.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        changes = counted.format(table=table, sign=1)
        op.execute(f"INSERT INTO tallies (of, day, slot, n) SELECT of, day, 0, sum(n) FROM ({changes}) c GROUP BY 1, 2")  # noqa: S608
        for event in events:
            _count(table, counted, event)
    op.execute(COUNT_NUMBERS)
    op.execute(FORGET_TRUNK)
    op.execute(
        "CREATE TRIGGER tally_forget AFTER DELETE ON trunks REFERENCING OLD TABLE AS gone"
        " FOR EACH STATEMENT EXECUTE FUNCTION voxpria_forget_trunk()"
    )
    op.drop_index("ix_phone_numbers_account_id_mode_id", "phone_numbers")
    op.create_index(
        "ix_phone_numbers_account_id_mode_id",
        "phone_numbers",
        ["account_id", "mode", "id"],
        postgresql_include=["trunk_id", "status", "engine"],
    )


def _count(table: str, counted: str, event: str) -> None:
    name = f"voxpria_tally_{table}_{event.lower()}"
    changes = " UNION ALL ".join(counted.format(table=rows, sign=sign) for rows, sign in _SIDES[event])
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$"  # noqa: S608  (constants only)
        " DECLARE ofs text[]; days date[]; ns bigint[]; BEGIN"
        f" SELECT array_agg(of), array_agg(day), array_agg(n) INTO ofs, days, ns"
        f" FROM (SELECT of, day, sum(n) AS n FROM ({changes}) AS each GROUP BY of, day HAVING sum(n) <> 0) AS c;"
        " IF ofs IS NOT NULL THEN PERFORM voxpria_tally(ofs, days, ns); END IF;"
        " RETURN NULL; END $$"
    )
    tables = " ".join(_TABLES[rows] for rows, _ in _SIDES[event])
    op.execute(
        f"CREATE TRIGGER tally_{event.lower()} AFTER {event} ON {table}"
        f" REFERENCING {tables} FOR EACH STATEMENT EXECUTE FUNCTION {name}()"
    )
