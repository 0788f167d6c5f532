"""Calls that ring at a provider, and the secret that it signs what it tells of them with."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("trunks", sa.Column("sealed_hook_secret", sa.LargeBinary))
    op.create_table(
        "provider_calls",
        sa.Column("trunk_id", sa.Text, sa.ForeignKey("trunks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("provider_call_id", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("sip_headers", JSONB, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("trunk_id", "event_id"),
        sa.Index("ix_provider_calls_received_at", "received_at"),
    )
