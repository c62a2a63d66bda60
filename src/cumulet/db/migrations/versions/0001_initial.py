"""The first schema. `db.schema.prepare` makes it whole on an empty database, so there is nothing to bring forward."""

from __future__ import annotations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing: a database that says 0001 has it."""
