"""What a caller can see at all, as SQL: his project's, what is shared with everyone, and what stands on his networks.

Policy decides further, per item; but what SQL does not answer never reaches it, so another project's thing is as
unknown as one that does not exist.
"""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.network.group_records import security_group_rules, security_groups
from cumulet.network.store import networks, ports, subnets
from cumulet.web.operation import Caller

SEES_ALL_ROLES = frozenset({"admin", "service", "advsvc"})


def sees_all(caller: Caller) -> bool:
    return not SEES_ALL_ROLES.isdisjoint(caller.roles)


def networks_for(project_id: str | None) -> sa.ColumnElement[bool]:
    """The project's networks, shared ones and external ones."""
    return sa.or_(networks.c.project_id == project_id, networks.c.shared, networks.c.external)


def networks_in_sight(caller: Caller) -> sa.ColumnElement[bool]:
    return sa.true() if sees_all(caller) else networks_for(caller.project_id)


def subnets_in_sight(caller: Caller) -> sa.ColumnElement[bool]:
    """Subnets of the project, and those of every network that the caller sees."""
    if sees_all(caller):
        return sa.true()
    on_networks = subnets.c.network_id.in_(sa.select(networks.c.id).where(networks_for(caller.project_id)))
    return sa.or_(subnets.c.project_id == caller.project_id, on_networks)


def ports_in_sight(caller: Caller) -> sa.ColumnElement[bool]:
    """Ports of the project, and all ports on the project's own networks."""
    if sees_all(caller):
        return sa.true()
    own_networks = sa.select(networks.c.id).where(networks.c.project_id == caller.project_id)
    return sa.or_(ports.c.project_id == caller.project_id, ports.c.network_id.in_(own_networks))


def rules_in_sight(caller: Caller) -> sa.ColumnElement[bool]:
    """Rules of the project's security groups."""
    if sees_all(caller):
        return sa.true()
    own_groups = sa.select(security_groups.c.id).where(security_groups.c.project_id == caller.project_id)
    return security_group_rules.c.security_group_id.in_(own_groups)


def own_in_sight(caller: Caller, table: sa.Table) -> sa.ColumnElement[bool]:
    """Things that only their project sees."""
    return sa.true() if sees_all(caller) else table.c.project_id == caller.project_id
