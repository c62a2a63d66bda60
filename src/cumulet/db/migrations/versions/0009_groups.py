"""Groups, their members and roles; roles that are inherited; projects below projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What users were given stays theirs, and is not inherited."""
    op.create_table(
        "identity_groups",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("domain_id", sa.Text, sa.ForeignKey("identity_domains.id"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("extra", sa.JSON, nullable=False),
        sa.UniqueConstraint("domain_id", "name"),
    )
    op.create_table(
        "identity_memberships",
        sa.Column("user_id", sa.Text, sa.ForeignKey("identity_users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("group_id", sa.Text, sa.ForeignKey("identity_groups.id", ondelete="CASCADE"), primary_key=True),
    )
    op.create_index("ix_identity_memberships_group_id", "identity_memberships", ["group_id"])
    _remake_assignments()
    with op.batch_alter_table("identity_projects") as batch:
        batch.add_column(sa.Column("parent_id", sa.Text))
        batch.create_foreign_key(
            "fk_identity_projects_parent_id_identity_projects", "identity_projects", ["parent_id"], ["id"]
        )
    op.create_index("ix_identity_projects_parent_id", "identity_projects", ["parent_id"])


def _remake_assignments() -> None:
    """The primary key was the user's; now there may be none."""
    connection = op.get_bind()
    old = connection.execute(sa.text("SELECT user_id, scope, scope_id, role_id FROM identity_assignments")).mappings()
    rows = [dict(row) for row in old]
    op.drop_table("identity_assignments")
    made = op.create_table(
        "identity_assignments",
        sa.Column("user_id", sa.Text, sa.ForeignKey("identity_users.id", ondelete="CASCADE")),
        sa.Column("group_id", sa.Text, sa.ForeignKey("identity_groups.id", ondelete="CASCADE")),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("scope_id", sa.Text, nullable=False),
        sa.Column("role_id", sa.Text, sa.ForeignKey("identity_roles.id", ondelete="CASCADE"), nullable=False),
        sa.Column("inherited", sa.Boolean, nullable=False),
        sa.CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="one_holder"),
    )
    op.create_index("ix_identity_assignments_scope", "identity_assignments", ["scope", "scope_id"])
    op.create_index("ix_identity_assignments_group_id", "identity_assignments", ["group_id"])
    holder = [sa.text("coalesce(user_id, '')"), sa.text("coalesce(group_id, '')")]
    place = ["scope", "scope_id", "role_id", "inherited"]
    op.create_index("uq_identity_assignments", "identity_assignments", [*holder, *place], unique=True)
    if rows:
        op.bulk_insert(made, [{**row, "group_id": None, "inherited": False} for row in rows])
