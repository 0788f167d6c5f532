"""The names of agents that live at a provider."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Go up to this revision."""
    op.create_table(
        "provider_agents",
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
        sa.Column("mode", sa.Text, primary_key=True),
        sa.Column("agent_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text),
        sa.Column("looked_up_at", sa.DateTime(timezone=True), nullable=False),
    )
