"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from voxpria_server.kit.db import metadata

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("events", ARRAY(sa.Text), nullable=False),
    sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
    sa.Column("status", sa.Text, sa.CheckConstraint("status IN ('active', 'disabled')", name="status"), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("failing_since", sa.DateTime(timezone=True)),
    sa.Column("disabled_at", sa.DateTime(timezone=True)),
    sa.Column("disabled_reason", sa.Text),
    sa.Column("former_sealed_secrets", ARRAY(sa.LargeBinary), nullable=False, server_default="{}"),
    sa.Column("former_secrets_expire_at", ARRAY(sa.DateTime(timezone=True)), nullable=False, server_default="{}"),
    sa.Index("ix_webhooks_account_id_mode_id", "account_id", "mode", "id"),
)
"""`failing_since`: the first failure after the last success. Former secrets: the newest, which ends last, is first."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("mode", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("is_test", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("traceparent", sa.Text),
    sa.Index("ix_events_account_id_mode_id", "account_id", "mode", "id"),
    sa.Index("ix_events_created_at", "created_at"),
)
"""`body` is what is sent, byte for byte, however often. `is_test`: the customer asked for it, nothing happened.

`traceparent`: the trace in which it happened, where traces are kept; its deliveries belong there.
"""

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    sa.Column("event_id", sa.Text, sa.ForeignKey("events.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column(
        "status",
        sa.Text,
        sa.CheckConstraint("status IN ('pending', 'succeeded', 'failed')", name="status"),
        nullable=False,
    ),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("turn_at", sa.DateTime(timezone=True)),
    sa.Column("claimed_until", sa.DateTime(timezone=True)),
    sa.Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    sa.Index("ix_webhook_deliveries_pending", "next_attempt_at", "id", postgresql_where=sa.text("status = 'pending'")),
)
"""One event to one webhook. `attempts` counts those made; `next_attempt_at` is null once it is over.

`turn_at`: the minute whose share of attempts the next one has been given. `claimed_until`: a courier is making it; if
nothing has come of it by then, another will.
"""

webhook_turns = sa.Table(
    "webhook_turns",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("mode", sa.Text, primary_key=True),
    sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("taken", sa.BigInteger, nullable=False),
    prefixes=["UNLOGGED"],
)
"""Attempts that were given out, in minutes counted from `began_at`: the first so many in the first, and so on.

Unlogged: after a crash of the database a minute's count begins anew.
"""

webhook_attempts = sa.Table(
    "webhook_attempts",
    metadata,
    sa.Column("delivery_id", sa.Text, sa.ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("response", sa.Text),
)
"""What came of each attempt: a status code and the start of the response's body, or an error."""

tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("of", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("slot", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("n", sa.BigInteger, nullable=False),
)
"""How many rows there are: `of` an account and mode, events by day, of all and of each type (`acct_1 live call.ended`);
`of` a webhook, its deliveries, on no day. Triggers keep it; the sum over slots is the truth.
"""
