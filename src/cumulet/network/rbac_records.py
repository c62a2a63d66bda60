"""RBAC policies, as records."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import metadata
from cumulet.network.resource_columns import Resource, resource_columns

rbac_policies = sa.Table(
    "rbac_policies",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("object_type", sa.String(32), nullable=False),
    sa.Column("object_id", sa.String(36), nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    # A project, or "*" for every project.
    sa.Column("target_project", sa.String(64), nullable=False, index=True),
    sa.UniqueConstraint("object_id", "action", "target_project"),
)


class RbacPolicy(Resource, frozen=True, kw_only=True):
    object_type: str
    object_id: str
    action: str
    target_project: str
