"""An event's trace."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("events", sa.Column("traceparent", sa.Text))
