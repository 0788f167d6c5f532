"""Numbers that their owners switched off."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Go up to this revision."""
    op.add_column("phone_numbers", sa.Column("is_switched_off", sa.Boolean, nullable=False, server_default=sa.false()))
