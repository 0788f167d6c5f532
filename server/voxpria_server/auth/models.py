"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, CIDR

from voxpria_server.kit.db import metadata

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, sa.ForeignKey("accounts.id"), nullable=False, index=True),
    sa.Column("mode", sa.Text, sa.CheckConstraint("mode IN ('test', 'live')", name="mode"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("secret_sha256", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("scopes", ARRAY(sa.Text), nullable=False),
    sa.Column("hint", sa.Text, nullable=False, server_default=""),
    sa.Column("allowed_networks", ARRAY(CIDR), nullable=False, server_default="{}"),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("revoked_at", sa.DateTime(timezone=True)),
    sa.Column("last_used_at", sa.DateTime(timezone=True)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)
"""`hint`: the secret's last characters, to know it by. No allowed network means: from anywhere."""

rate_windows = sa.Table(
    "rate_windows",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("mode", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("used", sa.Integer, nullable=False),
    sa.Column("resets_at", sa.DateTime(timezone=True), nullable=False),
    prefixes=["UNLOGGED"],
    postgresql_with={"fillfactor": 50},
)
"""How much of each limit is used. Unlogged: a commit waits for no disk, and a crash of the database empties it."""

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("account_id", sa.Text, primary_key=True),
    sa.Column("mode", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("sealed_answer", sa.LargeBinary),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
)
"""`target` is method and path. Without its answer a row is only ever seen by the transaction that inserts it."""
