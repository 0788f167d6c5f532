"""Tables of this slice."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from voxpria_server.kit.db import metadata

route_version = sa.Table(
    "route_version",
    metadata,
    sa.Column("id", sa.SmallInteger, sa.CheckConstraint("id = 1", name="one_row"), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
)
"""One row. Triggers on trunks, phone_numbers and agents raise it at the commit of whatever changes a route."""

route_changes = sa.Table(
    "route_changes",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("e164", sa.Text),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Index("ix_route_changes_version", "version"),
)
"""At which version each trunk and number last changed or went; the same triggers write it. Kind `all`: everything."""

edges = sa.Table(
    "edges",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("applied_version", sa.BigInteger, nullable=False),
    sa.Column("parts", JSONB, nullable=False, server_default="{}"),
    sa.Column("open_calls", sa.Integer, nullable=False, server_default="0"),
    sa.Column("unsent_events", sa.Integer, nullable=False, server_default="0"),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
)
