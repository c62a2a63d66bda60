"""RBAC policies: what was shared with everybody, and what is external, has one each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_OTHER_ID = "substr(id, 29, 8) || substr(id, 9, 16) || substr(id, 25, 4) || substr(id, 1, 8)"
"""A second id made of one: a network may have two policies."""


def upgrade() -> None:
    """A table, with rows for what the columns `shared` and `external` say."""
    op.create_table(
        "rbac_policies",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("description", sa.String(255), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created_at_us", sa.BigInteger, nullable=False),
        sa.Column("updated_at_us", sa.BigInteger, nullable=False),
        sa.Column("object_type", sa.String(32), nullable=False),
        sa.Column("object_id", sa.String(36), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target_project", sa.String(64), nullable=False),
        sa.UniqueConstraint("object_id", "action", "target_project"),
    )
    op.create_index("ix_rbac_policies_project_id", "rbac_policies", ["project_id"])
    op.create_index("ix_rbac_policies_target_project", "rbac_policies", ["target_project"])
    _name("networks", "network", "access_as_shared", "id", "shared")
    _name("networks", "network", "access_as_external", _OTHER_ID, "external")
    _name("subnet_pools", "subnetpool", "access_as_shared", "id", "shared")


def _name(table: str, object_type: str, action: str, new_id: str, where: str) -> None:
    names = ("id", "project_id", "created_at_us", "updated_at_us")
    more = ("description", "revision", "object_type", "object_id", "action", "target_project")
    policies = sa.table("rbac_policies", *(sa.column(name) for name in (*names, *more)))
    of = sa.table(table, *(sa.column(name) for name in (*names, where)))
    texts = ("''", "0", f"'{object_type}'", f"{table}.id", f"'{action}'", "'*'")
    rows = sa.select(sa.literal_column(new_id), *(of.c[name] for name in names[1:]), *map(sa.text, texts))
    op.execute(policies.insert().from_select([*names, *more], rows.where(sa.column(where, sa.Boolean).is_(sa.true()))))
