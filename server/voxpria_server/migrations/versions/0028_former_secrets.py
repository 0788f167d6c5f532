"""A webhook may have several former secrets, each with its own end: rolled twice, it keeps both for their day."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Go up to this revision; the one former secret is the first of the list."""
    for name, kind in (
        ("former_sealed_secrets", sa.LargeBinary),
        ("former_secrets_expire_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("webhooks", sa.Column(name, ARRAY(kind), nullable=False, server_default="{}"))
    op.execute(
        "UPDATE webhooks SET former_sealed_secrets = ARRAY[previous_sealed_secret],"
        " former_secrets_expire_at = ARRAY[previous_secret_expires_at] WHERE previous_secret_expires_at > now()"
    )
    op.drop_column("webhooks", "previous_sealed_secret")
    op.drop_column("webhooks", "previous_secret_expires_at")
