"""Events of edges are kept in one round trip: their calls locked, what was known returned, what is new inserted."""

from alembic import op

revision = "0017"
down_revision = "0016"

TAKE = """
CREATE FUNCTION voxpria_take_call_events(ids text[], call_ids text[], bodies bytea[])
RETURNS TABLE (call_id text, id text, body bytea) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT hashtextextended(one, 0) AS key FROM unnest(call_ids) AS one ORDER BY key) AS keys;
    RETURN QUERY
        SELECT e.call_id, NULL::text, e.body FROM call_events e
        WHERE e.call_id = ANY(call_ids) ORDER BY e.call_id, e.position;
    RETURN QUERY
        INSERT INTO call_events AS e (id, call_id, body)
        SELECT given.id, given.call_id, given.body
        FROM unnest(ids, call_ids, bodies) WITH ORDINALITY AS given (id, call_id, body, place) ORDER BY place
        ON CONFLICT (id) DO NOTHING RETURNING e.call_id, e.id, NULL::bytea;
END
$$
"""
"""Rows with a body are events known before, each call's in the order in which they were taken; rows with an id are new.

The lock comes first, in a statement of its own: what follows sees what was committed while it was waited for. Locks are
taken in one order, so without deadlock.
"""


def upgrade() -> None:
    """Go up to this revision."""
    op.execute(TAKE)
