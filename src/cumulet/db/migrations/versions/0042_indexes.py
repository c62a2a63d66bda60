"""Indexes of what grows, so that no change and no page of a list reads a whole table."""

from __future__ import annotations

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

BY_ONE_COLUMN = """
    console_tokens.expires_at_us consumers.project_id floating_ips.floating_ip_address
    floating_ips.floating_network_id floating_ips.floating_port_id floating_ips.router_id
    identity_assignments.role_id identity_assignments.user_id identity_endpoints.region_id
    identity_implied_roles.implied_role_id identity_policy_associations.endpoint_id
    identity_policy_associations.region_id identity_policy_associations.service_id
    identity_regions.parent_region_id identity_registered_limits.region_id
    identity_revoked_tokens.expires_at_us identity_roles.domain_id identity_users.default_project_id
    image_tasks.expires_at_us networks.external networks.shared port_bindings.host routers.gateway_port_id
    subnet_pools.shared
"""


def upgrade() -> None:
    """Indexes only. The partial ones are in SQL that SQLite and PostgreSQL both read."""
    op.execute("CREATE INDEX ix_operations_unended ON operations (subject) WHERE ended_at_us IS NULL")
    op.execute("CREATE INDEX ix_servers_deleted ON servers (deleted_at_us) WHERE deleted_at_us IS NOT NULL")
    op.create_index("ix_instance_actions_started", "instance_actions", ["started_at_us", "server_id"])
    op.create_index("ix_migrations_ended", "migrations", ["ended_at_us", "destination_host"])
    op.create_index("ix_operations_ended", "operations", ["ended_at_us"])
    segment = ["network_type", "physical_network", "segmentation_id"]
    op.create_index("ix_network_segments_segment", "network_segments", segment)
    op.create_index("ix_networks_segment", "networks", segment)
    op.create_index("ix_servers_created", "servers", ["created_at_us", "number"])
    for table, column in (one.split(".") for one in BY_ONE_COLUMN.split()):
        op.create_index(f"ix_{table}_{column}", table, [column])
