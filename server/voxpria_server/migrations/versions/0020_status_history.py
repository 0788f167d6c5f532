"""The status page's memory."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Go up to this revision."""
    op.create_table(
        "status_days",
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        *(
            sa.Column(state, sa.Integer, nullable=False, server_default="0")
            for state in ("operational", "degraded", "down", "unknown")
        ),
    )
    op.create_table(
        "status_parts",
        sa.Column("part", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
    )
