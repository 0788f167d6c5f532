"""Plans say how many calls an account may have, and how many attempts of deliveries; edges are told of the former."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

LIMITS = {
    "webhook_attempts_per_minute": sa.Integer,
    "max_concurrent_calls": sa.Integer,
    "max_calls_per_second": sa.Double,
}

ON_CHANGE = """
CREATE FUNCTION voxpria_call_limits_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('voxpria.bumped_in', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('voxpria.bumped_in', pg_current_xact_id()::text, true);
        PERFORM voxpria_bump_route_version();
    END IF;
    RETURN NULL;
END
$$
"""
"""The limits of all accounts come with every change of the routes, so none need be marked."""

TRIGGERS = {
    "plans": "AFTER UPDATE OF is_sip_enabled, max_concurrent_calls, max_calls_per_second",
    "accounts": "AFTER INSERT OR UPDATE OF plan_id",
}


def upgrade() -> None:
    """Go up to this revision."""
    for name, kind in LIMITS.items():
        op.add_column("plans", sa.Column(name, kind, sa.CheckConstraint(f"{name} > 0", name=f"ck_plans_{name}")))
    op.execute(ON_CHANGE)
    for table, event in TRIGGERS.items():
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {table}_call_limits {event} ON {table} DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION voxpria_call_limits_changed()"
        )
