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
    sa.Column("speaks_first", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("heard_until", sa.DateTime(timezone=True)),
    sa.UniqueConstraint("trunk_id", "event_id"),
    sa.Index("ix_provider_calls_received_at", "received_at"),
    sa.Index("ix_provider_calls_heard_until", "heard_until", postgresql_where=sa.text("heard_until IS NOT NULL")),
)
"""Calls that ring at a provider and wait for our answer: `pending`, then `accepted`, `rejected` or `failed`.

`speaks_first`: the agent has yet to be told to begin. `heard_until`: the lease of the process that hears what is said
in an accepted call; none once it has been written down.
"""

provider_call_turns = sa.Table(
    "provider_call_turns",
    metadata,
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
"""What has been said so far in an accepted call; when that is over it becomes the call's transcript."""
