"""Tables of this slice."""

import sqlalchemy as sa

from voxpria_server.kit.db import metadata

agents = sa.Table(
    "agents",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("engine", sa.Text, nullable=False),
    sa.Column("instructions", sa.Text),
    sa.Column("voice", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("language", sa.Text),
    sa.Column("external_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Index("ix_agents_account_id_mode_id", "account_id", "mode", "id"),
)
