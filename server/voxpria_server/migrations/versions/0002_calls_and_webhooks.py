"""Calls and their events; webhooks, events, deliveries and attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go up to this revision."""
    _calls()
    _webhooks()
    _events()
    _deliveries()


def _calls() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
        *(_text(name) for name in ("mode", "phone_number", "direction", "from_number", "to_number")),
        *(_text(name, nullable=True) for name in ("number_id", "trunk_id", "agent_id")),
        _text("status"),
        _time("started_at"),
        _time("answered_at", nullable=True),
        _time("ended_at", nullable=True),
        sa.Column("duration_seconds", sa.Integer, nullable=False),
        sa.Column("max_duration_seconds", sa.Integer),
        sa.Column("sip_code", sa.Integer),
        *(_text(name, nullable=True) for name in ("sip_reason", "end_cause", "ended_by")),
        sa.Column("explanation", JSONB, nullable=False),
        _text("recording"),
        sa.Column("quality", JSONB),
        _text("caller_location", nullable=True),
        _text("edge_id"),
        _text("sip_call_id"),
        _time("updated_at"),
        sa.Index("ix_calls_account_id_mode_id", "account_id", "mode", "id"),
        sa.Index("ix_calls_account_id_mode_phone_number_id", "account_id", "mode", "phone_number", "id"),
        sa.Index("ix_calls_account_id_mode_started_at", "account_id", "mode", "started_at"),
        sa.Index("ix_calls_in_progress", "edge_id", "started_at", postgresql_where=sa.text("status = 'in-progress'")),
    )
    op.create_table(
        "call_events",
        sa.Column("id", sa.Text, primary_key=True),
        _text("call_id"),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Index("ix_call_events_call_id_position", "call_id", "position"),
    )


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
        _text("mode"),
        _text("url"),
        sa.Column("events", ARRAY(sa.Text), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
        _status("active", "disabled"),
        _time("created_at"),
        _time("updated_at"),
        sa.Index("ix_webhooks_account_id_mode_id", "account_id", "mode", "id"),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
        _text("mode"),
        _text("type"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("is_test", sa.Boolean, nullable=False),
        _time("created_at"),
        sa.Index("ix_events_account_id_mode_id", "account_id", "mode", "id"),
        sa.Index("ix_events_created_at", "created_at"),
    )


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("webhook_id", sa.Text, sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id", ondelete="CASCADE"), nullable=False, index=True),
        _status("pending", "succeeded", "failed"),
        sa.Column("attempts", sa.Integer, nullable=False),
        _time("next_attempt_at", nullable=True),
        _time("created_at"),
        sa.Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Text, sa.ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        _time("started_at"),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status_code", sa.Integer),
        _text("error", nullable=True),
        _text("response", nullable=True),
    )


def _account() -> sa.Column[str]:
    return sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _status(*values: str) -> sa.Column[str]:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.Column("status", sa.Text, sa.CheckConstraint(f"status IN ({listed})", name="status"), nullable=False)
