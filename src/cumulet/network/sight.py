"""What a caller can see, as SQL: what is their project's, what is shared with it, and what is on its networks.

Policy decides further about each resource. A resource that SQL does not find is 404, so another project's resource
looks like one that does not exist.
"""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.network import sharing
from cumulet.network.group_records import security_group_rules, security_groups
from cumulet.network.sharing import Action, Sharing
from cumulet.network.store import SOURCES, RecordT, find, find_by, networks, ports, subnets
from cumulet.web.operation import Caller

SEES_ALL_ROLES = frozenset({"admin", "service", "advsvc"})


def sees_all(caller: Caller) -> bool:
    return not SEES_ALL_ROLES.isdisjoint(caller.roles)


def networks_for(project_id: str | None) -> sa.ColumnElement[bool]:
    """The project's networks, those shared with it, and external ones."""
    shared = sharing.with_project(sharing.Shareable.NETWORK, project_id, Action.EXTERNAL)
    return sa.or_(networks.c.project_id == project_id, networks.c.id.in_(shared))


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


def shared_in_sight(caller: Caller, shared: Sharing) -> sa.ColumnElement[bool]:
    """Resources of the project, and those shared with it."""
    if sees_all(caller):
        return sa.true()
    with_it = shared.column.in_(sharing.with_project(shared.object_type, caller.project_id))
    return sa.or_(shared.column.table.c.project_id == caller.project_id, with_it)


def own_in_sight(caller: Caller, table: sa.Table) -> sa.ColumnElement[bool]:
    """Resources that only their own project sees."""
    return sa.true() if sees_all(caller) else table.c.project_id == caller.project_id


def with_id(tx: Tx, record: type[RecordT], record_id: str, sight: sa.ColumnElement[bool]) -> list[RecordT]:
    """The record with this id, if it is in sight. Who sees all needs no statement of its own."""
    if sight is sa.true():
        return find_by(tx, record, id=record_id)
    return find(tx, record, SOURCES[record].c.id == record_id, sight)
