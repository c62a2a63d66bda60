"""Application credentials with their access rules, and trusts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _of(table: str, name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, sa.ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable)


def upgrade() -> None:
    """Three tables."""
    op.create_table(
        "identity_application_credentials",
        sa.Column("id", sa.Text, primary_key=True),
        _of("identity_users", "user_id"),
        _of("identity_projects", "project_id"),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("secret_hash", sa.Text, nullable=False),
        sa.Column("unrestricted", sa.Boolean, nullable=False),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("role_ids", sa.JSON, nullable=False),
        sa.Column("access_rule_ids", sa.JSON(none_as_null=True)),
        sa.UniqueConstraint("user_id", "name"),
    )
    op.create_index(
        "ix_identity_application_credentials_project_id", "identity_application_credentials", ["project_id"]
    )
    op.create_table(
        "identity_access_rules",
        sa.Column("id", sa.Text, primary_key=True),
        _of("identity_users", "user_id"),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.UniqueConstraint("user_id", "service", "method", "path"),
    )
    op.create_table(
        "identity_trusts",
        sa.Column("id", sa.Text, primary_key=True),
        _of("identity_users", "trustor_user_id"),
        _of("identity_users", "trustee_user_id"),
        _of("identity_projects", "project_id", nullable=True),
        sa.Column("impersonation", sa.Boolean, nullable=False),
        sa.Column("remaining_uses", sa.Integer),
        sa.Column("expires_at_us", sa.BigInteger),
        sa.Column("redelegation_count", sa.Integer, nullable=False),
        _of("identity_trusts", "redelegated_trust_id", nullable=True),
        sa.Column("role_ids", sa.JSON, nullable=False),
    )
    for column in ("trustor_user_id", "trustee_user_id", "project_id", "redelegated_trust_id"):
        op.create_index(f"ix_identity_trusts_{column}", "identity_trusts", [column])
