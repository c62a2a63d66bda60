"""Filters of the catalog, policies for endpoints, limits of projects, settings of domains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.Text, primary_key=True)


def _of(table: str, name: str, *, nullable: bool = True, primary_key: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey(f"{table}.id", ondelete="CASCADE")
    return sa.Column(name, sa.Text, key, nullable=nullable and not primary_key, primary_key=primary_key)


def _or_nothing(*columns: str) -> list[sa.TextClause]:
    return [sa.text(f"coalesce({column}, '')") for column in columns]


def upgrade() -> None:
    """Tables of their own."""
    op.create_table(
        "identity_endpoint_groups",
        _id(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("filters", sa.JSON, nullable=False),
    )
    for table, other in (("endpoint_group_projects", "endpoint_group"), ("endpoint_projects", "endpoint")):
        op.create_table(
            f"identity_{table}",
            _of(f"identity_{other}s", f"{other}_id", primary_key=True),
            _of("identity_projects", "project_id", primary_key=True),
        )
        op.create_index(f"ix_identity_{table}_project_id", f"identity_{table}", ["project_id"])
    _policies()
    _limits()
    op.create_table(
        "identity_domain_options",
        _of("identity_domains", "domain_id", primary_key=True),
        sa.Column("group", sa.Text, primary_key=True),
        sa.Column("option", sa.Text, primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )


def _policies() -> None:
    op.create_table(
        "identity_policies",
        _id(),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("blob", sa.Text, nullable=False),
        sa.Column("extra", sa.JSON, nullable=False),
    )
    op.create_table(
        "identity_policy_associations",
        _of("identity_policies", "policy_id", nullable=False),
        _of("identity_endpoints", "endpoint_id"),
        _of("identity_services", "service_id"),
        _of("identity_regions", "region_id"),
    )
    op.create_index("ix_identity_policy_associations_policy_id", "identity_policy_associations", ["policy_id"])
    place = _or_nothing("endpoint_id", "service_id", "region_id")
    op.create_index("uq_identity_policy_associations", "identity_policy_associations", place, unique=True)


def _limits() -> None:
    op.create_table(
        "identity_registered_limits",
        _id(),
        _of("identity_services", "service_id", nullable=False),
        _of("identity_regions", "region_id"),
        sa.Column("resource_name", sa.Text, nullable=False),
        sa.Column("default_limit", sa.Integer, nullable=False),
        sa.Column("description", sa.Text),
    )
    what = [sa.text("service_id"), *_or_nothing("region_id"), sa.text("resource_name")]
    op.create_index("uq_identity_registered_limits", "identity_registered_limits", what, unique=True)
    op.create_table(
        "identity_limits",
        _id(),
        _of("identity_registered_limits", "registered_limit_id", nullable=False),
        _of("identity_projects", "project_id"),
        _of("identity_domains", "domain_id"),
        sa.Column("resource_limit", sa.Integer, nullable=False),
        sa.Column("description", sa.Text),
    )
    for column in ("project_id", "domain_id"):
        op.create_index(f"ix_identity_limits_{column}", "identity_limits", [column])
    whose = [sa.text("registered_limit_id"), *_or_nothing("project_id", "domain_id")]
    op.create_index("uq_identity_limits", "identity_limits", whose, unique=True)
