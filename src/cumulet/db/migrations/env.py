"""Alembic's way in: migrations run on the engine that `db.schema` hands over, in one transaction."""

from __future__ import annotations

from alembic import context

from cumulet.db.engine import metadata

engine = context.config.attributes["engine"]

with engine.connect() as connection, connection.begin():
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()
