"""Trunks: more of a config, and health that is looked at again and again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NEW_CONFIG = """
{"media_encryption": "allowed", "max_concurrent_calls": null, "max_calls_per_second": null, "register": false,
 "codecs": [], "failover_trunk_ids": []}
"""


def upgrade() -> None:
    """Go up to this revision."""
    op.get_bind().execute(sa.text("UPDATE trunks SET config = CAST(:new AS jsonb) || config"), {"new": NEW_CONFIG})
    # the update's triggers wait for the commit, and a table with such can't be altered
    op.execute("SET CONSTRAINTS ALL IMMEDIATE")
    op.add_column("trunks", sa.Column("health_failures", sa.Integer, nullable=False, server_default="0"))
    next_at = sa.Column("health_next_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now())
    op.add_column("trunks", next_at)
    op.create_index("ix_trunks_health_next_at", "trunks", ["health_next_at"])
