"""Calls that the API places: commands with a body and a deadline; `queued` is a status."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"

_QUEUED_IS_A_STATUS = """
DO $$
DECLARE f record;
BEGIN
    FOR f IN SELECT pg_get_functiondef(oid) AS body FROM pg_proc
        WHERE pronamespace = current_schema::regnamespace AND prosrc LIKE '%ARRAY[''in-progress''%'
    LOOP
        EXECUTE replace(f.body, 'ARRAY[''in-progress''', 'ARRAY[''queued'', ''in-progress''');
    END LOOP;
END $$
"""
"""The functions of 0015 name every status."""


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("call_commands", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("call_commands", sa.Column("body", sa.LargeBinary))
    op.execute(_QUEUED_IS_A_STATUS)
