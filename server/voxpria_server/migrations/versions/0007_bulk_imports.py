"""Queued imports of many numbers, row by row."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Go up to this revision."""
    op.create_table(
        "bulk_imports",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Index("ix_bulk_imports_created_at", "created_at"),
    )
    statuses = sa.CheckConstraint("status IN ('pending', 'success', 'failed')", name="status")
    op.create_table(
        "bulk_import_rows",
        sa.Column("import_id", sa.Text, sa.ForeignKey("bulk_imports.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("phone_number", sa.Text),
        sa.Column("status", sa.Text, statuses, nullable=False),
        sa.Column("number_id", sa.Text),
        sa.Column("error", JSONB),
    )
