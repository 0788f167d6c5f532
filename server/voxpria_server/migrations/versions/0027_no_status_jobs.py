"""The status page is looked after by every process: no job of that name is run any more, and a late one would fail."""

from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Go up to this revision."""
    op.execute("DELETE FROM procrastinate_jobs WHERE task_name = 'status:look'")
    op.execute("DELETE FROM procrastinate_periodic_defers WHERE task_name = 'status:look'")
