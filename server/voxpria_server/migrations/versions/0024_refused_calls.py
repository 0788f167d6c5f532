"""Refused calls that are no account's, by day, source and cause."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Go up to this revision."""
    op.create_table(
        "refused_calls",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("cause", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("edge_id", sa.Text, nullable=False),
        sa.Column("transport", sa.Text, nullable=False),
        sa.Column("called", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("nearest", sa.Text),
        sa.Column("mend", sa.Text),
    )
