"""Webhooks: secrets that roll, endpoints that fail for days, and deliveries that wait for their turn."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Go up to this revision. Every pending delivery has its job."""
    op.add_column("webhooks", sa.Column("previous_sealed_secret", sa.LargeBinary))
    for name in ("previous_secret_expires_at", "failing_since", "disabled_at"):
        op.add_column("webhooks", sa.Column(name, sa.DateTime(timezone=True)))
    op.add_column("webhooks", sa.Column("disabled_reason", sa.Text))
    op.add_column("webhook_deliveries", sa.Column("turn_at", sa.DateTime(timezone=True)))
    op.add_column("webhook_deliveries", sa.Column("is_queued", sa.Boolean, nullable=False, server_default=sa.true()))
    op.alter_column("webhook_deliveries", "is_queued", server_default=None)
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("status = 'pending' AND NOT is_queued"),
    )
    op.create_table(
        "webhook_turns",
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("mode", sa.Text, primary_key=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("taken", sa.BigInteger, nullable=False),
        prefixes=["UNLOGGED"],
    )
