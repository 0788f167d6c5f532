"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from voxpria_server.kit.db import metadata

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("phone_number", sa.Text, nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("from_number", sa.Text, nullable=False),
    sa.Column("to_number", sa.Text, nullable=False),
    sa.Column("number_id", sa.Text),
    sa.Column("trunk_id", sa.Text),
    sa.Column("agent_id", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("answered_at", sa.DateTime(timezone=True)),
    sa.Column("ended_at", sa.DateTime(timezone=True)),
    sa.Column("duration_seconds", sa.Integer, nullable=False),
    sa.Column("max_duration_seconds", sa.Integer),
    sa.Column("sip_code", sa.Integer),
    sa.Column("sip_reason", sa.Text),
    sa.Column("end_cause", sa.Text),
    sa.Column("ended_by", sa.Text),
    sa.Column("explanation", JSONB, nullable=False),
    sa.Column("recording", sa.Text, nullable=False),
    sa.Column("quality", JSONB(none_as_null=True)),
    sa.Column("caller_location", sa.Text),
    sa.Column("edge_id", sa.Text, nullable=False),
    sa.Column("sip_call_id", sa.Text, nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("has_transcript", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(
        "ix_calls_account_id_mode_started_at_id",
        "account_id",
        "mode",
        "started_at",
        "id",
        postgresql_include=["direction", "status"],
    ),
    sa.Index(
        "ix_calls_account_id_mode_phone_number_started_at_id",
        "account_id",
        "mode",
        "phone_number",
        "started_at",
        "id",
        postgresql_include=["direction", "status"],
    ),
    sa.Index("ix_calls_of_kind", "account_id", "mode", "direction", "status", "started_at", "id"),
    sa.Index(
        "ix_calls_of_number_and_kind", "account_id", "mode", "phone_number", "direction", "status", "started_at", "id"
    ),
    sa.Index("ix_calls_in_progress", "edge_id", "started_at", postgresql_where=sa.text("status = 'in-progress'")),
)
"""What the events of each call say, folded by `state`. Its ids of number, trunk and agent outlive what they name."""

call_transcripts = sa.Table(
    "call_transcripts",
    metadata,
    sa.Column("call_id", sa.Text, sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("external_id", sa.Text),
    sa.Column("segments", JSONB, nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
)
"""What was said: `segments` as the API shows them. `source` says who wrote it down, `external_id` what they call it."""

call_counts = sa.Table(
    "call_counts",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("mode", sa.Text, primary_key=True),
    sa.Column("phone_number", sa.Text, primary_key=True),
    sa.Column("level", sa.Text, primary_key=True),
    sa.Column("bucket", sa.DateTime(timezone=True), primary_key=True),
    sa.Column("direction", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, primary_key=True),
    sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("n", sa.BigInteger, nullable=False),
)
"""How many calls began in each month, day and hour (`level`, from `bucket` on, UTC): of all numbers where
`phone_number` is empty, and, without the hours, of each. Triggers on `calls` keep it; the sum over slots is the truth.
"""

call_commands = sa.Table(
    "call_commands",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("call_id", sa.Text, sa.ForeignKey("calls.id", ondelete="CASCADE"), nullable=False),
    sa.Column("edge_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("body", sa.LargeBinary),
    sa.Index("ix_call_commands_call_id", "call_id"),
)
"""What edges are asked to do with calls that are not over. Without `edge_id`, any edge may."""

call_events = sa.Table(
    "call_events",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("call_id", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("ix_call_events_call_id_position", "call_id", "position"),
)
"""Every event of an edge, as it came and in the order in which it was taken. An event may precede its call's row."""
