"""Tables of this slice. Numbers hang on their trunk, which counts, marks and deletes them: so their table is here."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from voxpria_server.kit.db import metadata

trunks = sa.Table(
    "trunks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("sealed_credentials", sa.LargeBinary, nullable=False),
    sa.Column("config", JSONB, nullable=False),
    sa.Column("health_status", sa.Text, nullable=False),
    sa.Column("health_checked_at", sa.DateTime(timezone=True)),
    sa.Column("health_latency_ms", sa.Float),
    sa.Column("health_detail", sa.Text),
    sa.Column("health_failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("health_edge_id", sa.Text),
    sa.Column("health_next_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    sa.Column("provisioned_at", sa.DateTime(timezone=True)),
    sa.Column("sealed_hook_secret", sa.LargeBinary),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("account_id", "mode", "name"),
    sa.Index("ix_trunks_account_id_mode_id", "account_id", "mode", "id"),
    sa.Index("ix_trunks_health_next_at", "health_next_at"),
)

trunk_registrations = sa.Table(
    "trunk_registrations",
    metadata,
    sa.Column("trunk_id", sa.Text, sa.ForeignKey("trunks.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("edge_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("sip_code", sa.Integer),
    sa.Column("detail", sa.Text),
    sa.Column("mend", sa.Text),
)
"""What each edge says of its registration with a trunk's server."""

phone_numbers = sa.Table(
    "phone_numbers",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("e164", sa.Text, nullable=False),
    sa.Column("trunk_id", sa.Text, sa.ForeignKey("trunks.id"), nullable=False, index=True),
    sa.Column("engine", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("config", JSONB, nullable=False),
    sa.Column(
        "status",
        sa.Text,
        sa.CheckConstraint("status IN ('provisioning', 'active', 'inactive')", name="status"),
        nullable=False,
    ),
    sa.Column("status_reason", sa.Text),
    sa.Column("is_switched_off", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("is_routed", sa.Boolean, nullable=False),
    sa.Column("needs_reprovision", sa.Boolean, nullable=False),
    sa.Column("provider_number_id", sa.Text),
    sa.Column("edge_awaited_since", sa.DateTime(timezone=True)),
    sa.Column("provisioned_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("account_id", "mode", "e164"),
    sa.Index(
        "ix_phone_numbers_account_id_mode_id",
        *("account_id", "mode", "id"),
        postgresql_include=["trunk_id", "status", "engine"],
    ),
    sa.Index(
        "ix_phone_numbers_edge_awaited_since",
        "edge_awaited_since",
        postgresql_where=sa.text("edge_awaited_since IS NOT NULL"),
    ),
)
"""What lists are filtered by is in their index, so that rows before a page are passed over without being read.

`is_routed`: the provider has it, so the edges may dial it; `active` follows once they all have the route.
`edge_awaited_since`: all is done but that, and goes on as soon as the edges have it."""
