"""How many of each resource a project may have, and the check before one more is made."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata
from cumulet.errors import OverQuota
from cumulet.network.group_records import security_group_rules, security_groups
from cumulet.network.rbac_records import rbac_policies
from cumulet.network.store import floating_ips, networks, ports, routers, subnets
from cumulet.network.subnet_pool_records import subnet_pools

UNLIMITED = -1

network_quotas = sa.Table(
    "network_quotas",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("limit", sa.Integer, nullable=False),
)

DEFAULT_LIMITS = {
    "network": 100,
    "subnet": 100,
    "subnetpool": UNLIMITED,
    "port": 500,
    "router": 10,
    "floatingip": 50,
    "security_group": 10,
    "security_group_rule": 100,
    "rbac_policy": 10,
}
"""Upstream's defaults."""

_COUNTED = {
    "network": networks,
    "subnet": subnets,
    "subnetpool": subnet_pools,
    "port": ports,
    "router": routers,
    "floatingip": floating_ips,
    "security_group": security_groups,
    "security_group_rule": security_group_rules,
    "rbac_policy": rbac_policies,
}


_OWN_LIMITS = sa.select(network_quotas.c.resource, network_quotas.c.limit).where(
    network_quotas.c.project_id == sa.bindparam("project_id")
)
_COUNTS = {
    resource: sa.select(sa.func.count()).select_from(table).where(table.c.project_id == sa.bindparam("project_id"))
    for resource, table in _COUNTED.items()
}


def limits_of(tx: Tx, project_id: str) -> dict[str, int]:
    """The project's limits, its own or the default ones."""
    own = {row.resource: row.limit for row in tx.execute(_OWN_LIMITS, {"project_id": project_id})}
    return DEFAULT_LIMITS | own


def used(tx: Tx, project_id: str, resource: str) -> int:
    """How many the project has. What does not exist here yet is never used."""
    statement = _COUNTS.get(resource)
    return 0 if statement is None else int(tx.execute(statement, {"project_id": project_id}).scalar_one())


def _own_and_used(resource: str) -> sa.Select[int | None, int]:
    table = _COUNTED[resource]
    project_id = sa.bindparam("project_id", type_=sa.String())
    own = sa.select(network_quotas.c.limit).where(
        network_quotas.c.project_id == project_id, network_quotas.c.resource == resource
    )
    count = sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id)
    return sa.select(own.scalar_subquery(), count.scalar_subquery())


_OWN_AND_USED = {resource: _own_and_used(resource) for resource in _COUNTED}


def remaining(tx: Tx, project_id: str, resource: str) -> int | None:
    """How many more the project may have; None without limit."""
    own, count = tx.all(_OWN_AND_USED[resource], {"project_id": project_id})[0]
    limit = DEFAULT_LIMITS[resource] if own is None else own
    return None if limit < 0 else max(0, limit - count)


def check(tx: Tx, project_id: str, resource: str, count: int = 1) -> None:
    """Refuse what would exceed the project's quota."""
    left = remaining(tx, project_id, resource)
    if left is not None and count > left:
        raise OverQuota(f"Quota exceeded for resources: ['{resource}'].", reason="QUOTA")
