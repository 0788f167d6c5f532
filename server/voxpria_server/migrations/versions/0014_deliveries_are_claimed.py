"""Deliveries are claimed by couriers, in their rows; they have no jobs any more."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Go up to this revision. What was under way is due as its row says."""
    op.execute("DELETE FROM procrastinate_jobs WHERE task_name IN ('webhooks:deliver', 'webhooks:wake')")
    op.execute("DELETE FROM procrastinate_periodic_defers WHERE task_name = 'webhooks:wake'")
    op.execute(
        "UPDATE procrastinate_jobs SET args = jsonb_build_object('call_ids', jsonb_build_array(args -> 'call_id'))"
        " WHERE task_name = 'calls:locate'"
    )
    op.drop_index("ix_webhook_deliveries_waiting")
    op.drop_column("webhook_deliveries", "is_queued")
    op.add_column("webhook_deliveries", sa.Column("claimed_until", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["next_attempt_at", "id"],
        postgresql_where=sa.text("status = 'pending'"),
    )
