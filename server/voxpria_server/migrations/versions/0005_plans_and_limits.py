"""Plans, members, what keys may be bound to, and the windows of the rate limits."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, CIDR

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go up to this revision. Accounts that are there get the standard plan; their keys work on from anywhere."""
    _plans()
    _members()
    _keys()
    _rate_windows()


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("is_sip_enabled", sa.Boolean, nullable=False),
        _limit("requests_per_hour"),
        _limit("imports_per_minute"),
    )
    op.execute("INSERT INTO plans (id, is_sip_enabled) VALUES ('standard', true)")
    plan = sa.Column("plan_id", sa.Text, sa.ForeignKey("plans.id"), nullable=False, server_default="standard")
    op.add_column("accounts", plan)


def _members() -> None:
    op.create_table(
        "members",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("email", sa.Text, sa.CheckConstraint("email = lower(email)", name="email"), nullable=False),
        sa.Column(
            "role", sa.Text, sa.CheckConstraint("role IN ('owner', 'admin', 'viewer')", name="role"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("account_id", "email"),
    )


def _keys() -> None:
    op.add_column("api_keys", sa.Column("hint", sa.Text, nullable=False, server_default=""))
    op.add_column("api_keys", sa.Column("allowed_networks", ARRAY(CIDR), nullable=False, server_default="{}"))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))


def _rate_windows() -> None:
    op.create_table(
        "rate_windows",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("account_id", "mode", "kind")),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("resets_at", sa.DateTime(timezone=True), nullable=False),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )


def _limit(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, sa.CheckConstraint(f"{name} > 0", name=name))
