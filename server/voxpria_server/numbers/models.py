"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from voxpria_server.kit.db import metadata

phone_number_stats = sa.Table(
    "phone_number_stats",
    metadata,
    sa.Column("phone_number_id", sa.Text, sa.ForeignKey("phone_numbers.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("total_calls", sa.BigInteger, nullable=False),
    sa.Column("talk_seconds", sa.BigInteger, nullable=False),
    sa.Column("last_call_at", sa.DateTime(timezone=True), nullable=False),
)
"""Beside the numbers, so that counting a call touches no route."""

provider_agents = sa.Table(
    "provider_agents",
    metadata,
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("mode", sa.Text, primary_key=True),
    sa.Column("agent_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("looked_up_at", sa.DateTime(timezone=True), nullable=False),
)
"""What ElevenLabs said of its agents when it was last asked; without a name, that there is no such agent."""

bulk_imports = sa.Table(
    "bulk_imports",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("completed_at", sa.DateTime(timezone=True)),
    sa.Index("ix_bulk_imports_created_at", "created_at"),
)

bulk_import_rows = sa.Table(
    "bulk_import_rows",
    metadata,
    sa.Column("import_id", sa.Text, sa.ForeignKey("bulk_imports.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", JSONB, nullable=False),
    sa.Column("phone_number", sa.Text),
    sa.Column(
        "status",
        sa.Text,
        sa.CheckConstraint("status IN ('pending', 'success', 'failed')", name="status"),
        nullable=False,
    ),
    sa.Column("number_id", sa.Text),
    sa.Column("error", JSONB(none_as_null=True)),
)
"""`body`: the row as it was sent, with what the batch says of all rows."""
