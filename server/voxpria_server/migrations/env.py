"""Alembic's entry: run the migrations on the URL that `migrate` was given, all in one transaction."""

import sqlalchemy as sa
from alembic import context

from voxpria_server.kit.db import metadata

url = sa.make_url(context.config.attributes["url"]).set(drivername="postgresql+psycopg")
engine = sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 3})
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
