"""Tables of this slice."""

import sqlalchemy as sa

from voxpria_server.kit.db import metadata

refused_calls = sa.Table(
    "refused_calls",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("cause", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("edge_id", sa.Text, nullable=False),
    sa.Column("transport", sa.Text, nullable=False),
    sa.Column("called", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("nearest", sa.Text),
    sa.Column("mend", sa.Text),
)
"""Refused calls that are no account's: how many came from an address in a day (UTC) and why, and the last of them."""
