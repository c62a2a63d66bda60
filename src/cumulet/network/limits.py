"""How many of each resource a project may have, and the check before one more is made."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import OverQuota
from cumulet.network.store import (
    floating_ips,
    network_quotas,
    networks,
    ports,
    routers,
    security_group_rules,
    security_groups,
    subnets,
)

UNLIMITED = -1

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
    "port": ports,
    "router": routers,
    "floatingip": floating_ips,
    "security_group": security_groups,
    "security_group_rule": security_group_rules,
}


def limits_of(tx: Tx, project_id: str) -> dict[str, int]:
    """The project's limits, its own or the default ones."""
    statement = sa.select(network_quotas.c.resource, network_quotas.c.limit)
    own = {row.resource: row.limit for row in tx.all(statement.where(network_quotas.c.project_id == project_id))}
    return DEFAULT_LIMITS | own


def used(tx: Tx, project_id: str, resource: str) -> int:
    """How many the project has. What does not exist here yet is never used."""
    table = _COUNTED.get(resource)
    if table is None:
        return 0
    count: int = tx.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.project_id == project_id))
    return count


def remaining(tx: Tx, project_id: str, resource: str) -> int | None:
    """How many more the project may have; None without limit."""
    limit = limits_of(tx, project_id)[resource]
    return None if limit < 0 else max(0, limit - used(tx, project_id, resource))


def check(tx: Tx, project_id: str, resource: str, count: int = 1) -> None:
    """Refuse what would exceed the project's quota."""
    left = remaining(tx, project_id, resource)
    if left is not None and count > left:
        raise OverQuota(f"Quota exceeded for resources: ['{resource}'].", reason="QUOTA")
