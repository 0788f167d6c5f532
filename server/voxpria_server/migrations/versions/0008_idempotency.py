"""The answers to POSTs with an idempotency key."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Go up to this revision."""
    op.create_table(
        "idempotency_keys",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("account_id", "mode", "target", "key")),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("sealed_answer", sa.LargeBinary),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )
