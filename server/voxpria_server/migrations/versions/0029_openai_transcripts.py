"""What is said in calls to OpenAI is heard while they last, by one process at a time, and kept turn by turn."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Go up to this revision; calls that were accepted before it are heard by nobody."""
    op.add_column(
        "provider_calls", sa.Column("speaks_first", sa.Boolean, nullable=False, server_default=sa.text("false"))
    )
    op.add_column("provider_calls", sa.Column("heard_until", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_provider_calls_heard_until",
        "provider_calls",
        ["heard_until"],
        postgresql_where=sa.text("heard_until IS NOT NULL"),
    )
    op.create_table(
        "provider_call_turns",
        sa.Column("trunk_id", sa.Text, primary_key=True),
        sa.Column("provider_call_id", sa.Text, primary_key=True),
        sa.Column("item_id", sa.Text, primary_key=True),
        sa.Column("speaker", sa.Text, nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["trunk_id", "provider_call_id"],
            ["provider_calls.trunk_id", "provider_calls.provider_call_id"],
            ondelete="CASCADE",
        ),
    )
