"""What the edges tell of trunks: which of them found a trunk's health, and their registrations."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("trunks", sa.Column("health_edge_id", sa.Text))
    op.create_table(
        "trunk_registrations",
        sa.Column("trunk_id", sa.Text, sa.ForeignKey("trunks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("edge_id", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("sip_code", sa.Integer),
        sa.Column("detail", sa.Text),
        sa.Column("mend", sa.Text),
    )
