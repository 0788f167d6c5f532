"""Numbers remember since when they wait for an edge to take their route, so that one job may wait for all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("phone_numbers", sa.Column("edge_awaited_since", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_phone_numbers_edge_awaited_since",
        "phone_numbers",
        ["edge_awaited_since"],
        postgresql_where="edge_awaited_since IS NOT NULL",
    )
