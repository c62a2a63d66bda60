"""Address scopes, and the pools in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table and a column."""
    op.create_table(
        "address_scopes",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("ip_version", sa.Integer, nullable=False),
    )
    op.create_index("ix_address_scopes_project_id", "address_scopes", ["project_id"])
    with op.batch_alter_table("subnet_pools") as batch:
        batch.add_column(sa.Column("address_scope_id", sa.String(36)))
        name = "fk_subnet_pools_address_scope_id_address_scopes"
        batch.create_foreign_key(name, "address_scopes", ["address_scope_id"], ["id"])
    op.create_index("ix_subnet_pools_address_scope_id", "subnet_pools", ["address_scope_id"])
