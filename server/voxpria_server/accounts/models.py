"""Tables of this slice."""

from typing import Any

import sqlalchemy as sa

from voxpria_server.kit.db import metadata

STANDARD_PLAN = "standard"


def _limit(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.Integer) -> sa.Column[Any]:
    return sa.Column(name, kind, sa.CheckConstraint(f"{name} > 0", name=name))


plans = sa.Table(
    "plans",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("is_sip_enabled", sa.Boolean, nullable=False),
    _limit("requests_per_hour"),
    _limit("imports_per_minute"),
    _limit("webhook_attempts_per_minute"),
    _limit("max_concurrent_calls"),
    _limit("max_calls_per_second", sa.Double),
)
"""What an account may do, in each mode; a limit that is NULL is that of the settings. Those of calls hold on each edge.

Triggers on plans and accounts have the edges told of the limits of calls.
"""

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("plan_id", sa.Text, sa.ForeignKey("plans.id"), nullable=False, server_default=STANDARD_PLAN),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)

members = sa.Table(
    "members",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("email", sa.Text, sa.CheckConstraint("email = lower(email)", name="email"), nullable=False),
    sa.Column("role", sa.Text, sa.CheckConstraint("role IN ('owner', 'admin', 'viewer')", name="role"), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("account_id", "email"),
)
"""People who will log in to the dashboard."""
