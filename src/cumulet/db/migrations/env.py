"""Alembic's way in: migrations run on the connection that `db.schema` hands over.

On SQLite all of them are one transaction: nobody else writes. PostgreSQL's other processes go on meanwhile, so there
each migration is a transaction of its own: fewer tables are locked at a time.
"""

from __future__ import annotations

from alembic import context

from cumulet.db.engine import metadata

connection = context.config.attributes["connection"]

context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
    transaction_per_migration=connection.dialect.name != "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
