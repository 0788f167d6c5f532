"""Tables of the status page: how each part was, and how it was last."""

import sqlalchemy as sa

from voxpria_server.kit.db import metadata

STATES = ("operational", "degraded", "down", "unknown")

status_days = sa.Table(
    "status_days",
    metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    *(sa.Column(state, sa.Integer, nullable=False, server_default="0") for state in STATES),
)
"""How many minutes of a day (UTC) a part was in each state; a row a part and day, for 90 days."""

status_parts = sa.Table(
    "status_parts",
    metadata,
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
)
"""What was found of each part when it was last looked at."""
