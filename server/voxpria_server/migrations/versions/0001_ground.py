"""Accounts, keys, agents, trunks, numbers, the routes' version, edges, and Procrastinate's own schema.

Procrastinate's schema is taken from the installed release (3.10), which the lock pins; a newer release brings
its migrations as SQL files, to be run in a revision of ours.
"""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None

ROUTE_TABLES = {
    "trunks": "name, provider, sealed_credentials, config",
    "phone_numbers": "trunk_id, engine, agent_id, config, status, status_reason, is_routed",
    "agents": "language",
}
"""The columns of each table that shape the snapshot."""

BUMP = """
CREATE FUNCTION voxpria_bump_route_version() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    raised bigint;
BEGIN
    UPDATE route_version SET version = version + 1 RETURNING version INTO raised;
    PERFORM pg_notify('voxpria_routes', raised::text);
END
$$
"""

ON_CHANGE = """
CREATE FUNCTION voxpria_route_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('voxpria.bumped_in', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('voxpria.bumped_in', pg_current_xact_id()::text, true);
        PERFORM voxpria_bump_route_version();
    END IF;
    RETURN NULL;
END
$$
"""
"""Once a transaction is enough: nobody sees the versions between."""


def upgrade() -> None:
    """Go up to this revision."""
    _tenancy()
    _agents()
    _trunks()
    _phone_numbers()
    _routing()
    _route_triggers()
    _procrastinate()


def _tenancy() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        _time("created_at"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        _account(index=True),
        sa.Column("mode", sa.Text, sa.CheckConstraint("mode IN ('test', 'live')", name="mode"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("scopes", ARRAY(sa.Text), nullable=False),
        _time("expires_at", nullable=True),
        _time("revoked_at", nullable=True),
        _time("created_at"),
    )


def _agents() -> None:
    op.create_table(
        "agents",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("instructions", "voice", "model", "language", "external_id")),
        _time("created_at"),
        _time("updated_at"),
        sa.Index("ix_agents_account_id_mode_id", "account_id", "mode", "id"),
    )


def _trunks() -> None:
    op.create_table(
        "trunks",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("mode", "name", "provider", "status")),
        sa.Column("sealed_credentials", sa.LargeBinary, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("health_status", sa.Text, nullable=False),
        _time("health_checked_at", nullable=True),
        sa.Column("health_latency_ms", sa.Float),
        sa.Column("health_detail", sa.Text),
        _time("provisioned_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        sa.UniqueConstraint("account_id", "mode", "name"),
        sa.Index("ix_trunks_account_id_mode_id", "account_id", "mode", "id"),
    )


def _phone_numbers() -> None:
    op.create_table(
        "phone_numbers",
        sa.Column("id", sa.Text, primary_key=True),
        _account(),
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
        sa.Column("is_routed", sa.Boolean, nullable=False),
        sa.Column("needs_reprovision", sa.Boolean, nullable=False),
        sa.Column("provider_number_id", sa.Text),
        _time("provisioned_at", nullable=True),
        _time("created_at"),
        _time("updated_at"),
        sa.UniqueConstraint("account_id", "mode", "e164"),
        sa.Index("ix_phone_numbers_account_id_mode_id", "account_id", "mode", "id"),
    )
    op.create_table(
        "phone_number_stats",
        sa.Column("phone_number_id", sa.Text, sa.ForeignKey("phone_numbers.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("total_calls", sa.BigInteger, nullable=False),
        sa.Column("talk_seconds", sa.BigInteger, nullable=False),
        _time("last_call_at"),
    )


def _routing() -> None:
    op.create_table(
        "route_version",
        sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO route_version (id, version) VALUES (1, 1)")
    op.create_table(
        "edges",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("applied_version", sa.BigInteger, nullable=False),
        sa.Column("parts", JSONB, nullable=False, server_default="{}"),
        sa.Column("open_calls", sa.Integer, nullable=False, server_default="0"),
        sa.Column("unsent_events", sa.Integer, nullable=False, server_default="0"),
        _time("seen_at"),
    )


def _route_triggers() -> None:
    op.execute(BUMP)
    op.execute(ON_CHANGE)
    for table, columns in ROUTE_TABLES.items():
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {table}_change_routes AFTER INSERT OR DELETE OR UPDATE OF {columns} ON {table}"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION voxpria_route_changed()"
        )


def _procrastinate() -> None:
    """Run its schema as one script: on the driver itself, as it holds `%` and many statements."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None
    driver.execute(SchemaManager.get_schema())


def _account(*, index: bool = False) -> sa.Column[str]:
    return sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False, index=index)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
