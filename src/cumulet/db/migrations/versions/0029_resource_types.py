"""Types of resources that metadata definitions know, which stay when their last association goes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table, with the types that namespaces are associated with."""
    op.create_table(
        "metadef_resource_types",
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    )
    op.execute(
        "INSERT INTO metadef_resource_types (name, created_at_us, updated_at_us) "
        "SELECT name, MIN(created_at_us), MAX(updated_at_us) FROM metadef_contents "
        "WHERE kind = 'resource_type' GROUP BY name"
    )
