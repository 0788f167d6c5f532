"""What changed of the routes since when: so that an edge is told of one number, not of all of them again."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

MARK_ALL = "INSERT INTO route_changes (kind, id, version) SELECT 'all', '', version FROM route_version"

MARK = """
CREATE FUNCTION voxpria_mark_route(what text, changed_id text, number text, at_version bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO route_changes (kind, id, e164, version) VALUES (what, changed_id, number, at_version)
    ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version
$$
"""

ON_CHANGE = """
CREATE OR REPLACE FUNCTION voxpria_route_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record;
    now_at bigint;
BEGIN
    IF current_setting('voxpria.bumped_in', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('voxpria.bumped_in', pg_current_xact_id()::text, true);
        PERFORM voxpria_bump_route_version();
    END IF;
    SELECT version INTO now_at FROM route_version;
    IF TG_OP = 'DELETE' THEN changed := OLD; ELSE changed := NEW; END IF;
    IF TG_TABLE_NAME = 'phone_numbers' THEN
        PERFORM voxpria_mark_route('number', changed.id, changed.e164, now_at);
    ELSIF TG_TABLE_NAME = 'trunks' THEN
        PERFORM voxpria_mark_route('trunk', changed.id, NULL, now_at);
        IF TG_OP <> 'UPDATE' THEN
            PERFORM voxpria_mark_route('number', n.id, n.e164, now_at) FROM phone_numbers n
            WHERE n.account_id = changed.account_id AND n.mode = changed.mode AND n.engine = changed.provider;
        END IF;
    ELSE
        PERFORM voxpria_mark_route('number', n.id, n.e164, now_at) FROM phone_numbers n
        WHERE n.account_id = changed.account_id AND n.mode = changed.mode AND n.agent_id = changed.id;
    END IF;
    RETURN NULL;
END
$$
"""
"""A number's route depends on its own row, on its agent's language, and on which trunks of its engine there are."""


def upgrade() -> None:
    """Go up to this revision. Edges that are behind it get everything anew."""
    op.create_table(
        "route_changes",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("e164", sa.Text),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Index("ix_route_changes_version", "version"),
    )
    op.execute(MARK_ALL)
    op.execute(MARK)
    op.execute(ON_CHANGE)
