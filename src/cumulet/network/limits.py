"""How many of each resource a project may have, and the check before another is made."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata
from cumulet.errors import OverQuota
from cumulet.network.address_scope_records import address_scopes
from cumulet.network.group_records import address_groups, security_group_rules, security_groups
from cumulet.network.metering_records import metering_labels
from cumulet.network.qos_records import qos_policies
from cumulet.network.rbac_records import rbac_policies
from cumulet.network.resource_columns import LONGEST_PROJECT_ID
from cumulet.network.store import floating_ips, networks, ports, routers, subnets
from cumulet.network.subnet_pool_records import subnet_pools
from cumulet.network.trunk_records import trunks

UNLIMITED = -1

network_quotas = sa.Table(
    "network_quotas",
    metadata,
    sa.Column("project_id", sa.String(LONGEST_PROJECT_ID), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.Integer, nullable=False),
)

DEFAULT_LIMITS = {
    "network": 100,
    "subnet": 100,
    "subnetpool": 100,
    "port": 500,
    "router": 10,
    "floatingip": 50,
    "security_group": 10,
    "security_group_rule": 100,
    "rbac_policy": 10,
    "trunk": UNLIMITED,
}
"""Upstream's defaults, by resource, but for subnet pools, which upstream does not limit. A project can have limits of
its own instead. A trunk needs a port that no other trunk has, so the limit of ports is one of trunks, too."""
FIXED_LIMITS = {"address_group": 100, "address_scope": 100, "metering_label": 10, "qos_policy": 100}
"""Ours, for what upstream does not limit. They are the same for each project."""

_COUNTED = {
    "address_group": address_groups,
    "address_scope": address_scopes,
    "metering_label": metering_labels,
    "qos_policy": qos_policies,
    "network": networks,
    "subnet": subnets,
    "subnetpool": subnet_pools,
    "port": ports,
    "router": routers,
    "floatingip": floating_ips,
    "security_group": security_groups,
    "security_group_rule": security_group_rules,
    "rbac_policy": rbac_policies,
    "trunk": trunks,
}


_OWN_LIMITS = sa.select(network_quotas.c.resource, network_quotas.c.limit).where(
    network_quotas.c.project_id == sa.bindparam("project_id")
)
_PROJECT_ID = sa.bindparam("project_id", type_=sa.String())
_COUNTS = {
    resource: sa.select(sa.func.count()).select_from(table).where(table.c.project_id == _PROJECT_ID)
    for resource, table in _COUNTED.items()
}


def limits_of(tx: Tx, project_id: str) -> dict[str, int]:
    """The project's limits by resource: its own, else the default ones. -1 is no limit."""
    own = {row.resource: row.limit for row in tx.execute(_OWN_LIMITS, {"project_id": project_id})}
    return DEFAULT_LIMITS | own


def used(tx: Tx, project_id: str, resource: str) -> int:
    """How many the project has."""
    return int(tx.execute(_COUNTS[resource], {"project_id": project_id}).scalar_one())


def _own_and_used(resource: str) -> sa.Select[int | None, int]:
    own = sa.select(network_quotas.c.limit).where(
        network_quotas.c.project_id == _PROJECT_ID, network_quotas.c.resource == resource
    )
    return sa.select(own.scalar_subquery(), _COUNTS[resource].scalar_subquery())


_OWN_AND_USED = {resource: _own_and_used(resource) for resource in _COUNTED}


def remaining(tx: Tx, project_id: str, resource: str) -> int | None:
    """How many more of a resource the project may have; None for no limit."""
    own, count = tx.all(_OWN_AND_USED[resource], {"project_id": project_id})[0]
    limit = (DEFAULT_LIMITS | FIXED_LIMITS)[resource] if own is None else own
    return None if limit < 0 else max(0, limit - count)


def check(tx: Tx, project_id: str, resource: str, count: int = 1) -> None:
    """409 for `count` more of a resource than the project may have."""
    left = remaining(tx, project_id, resource)
    if left is not None and count > left:
        raise OverQuota(f"Quota exceeded for resources: ['{resource}'].", reason="QUOTA")
