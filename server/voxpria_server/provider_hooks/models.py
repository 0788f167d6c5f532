"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from voxpria_server.kit.db import metadata

provider_calls = sa.Table(
    "provider_calls",
    metadata,
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
"""Calls that ring at a provider and wait for our answer: `pending`, then `accepted`, `rejected` or `failed`."""
