"""Address groups, and rules of security groups that name one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table and a column."""
    op.create_table(
        "address_groups",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("addresses", sa.JSON, nullable=False),
    )
    op.create_index("ix_address_groups_project_id", "address_groups", ["project_id"])
    with op.batch_alter_table("security_group_rules") as batch:
        batch.add_column(sa.Column("remote_address_group_id", sa.String(36)))
        batch.create_foreign_key(
            "fk_security_group_rules_remote_address_group_id_address_groups",
            "address_groups",
            ["remote_address_group_id"],
            ["id"],
        )
    op.create_index(
        "ix_security_group_rules_remote_address_group_id", "security_group_rules", ["remote_address_group_id"]
    )
