"""Which projects use a shared object. Sharing that is in use cannot be taken back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import sharing
from cumulet.network.device_owners import ON_EXTERNAL, ROUTER_GATEWAY
from cumulet.network.group_records import port_security_groups, security_group_rules
from cumulet.network.rbac_records import RbacPolicy
from cumulet.network.resource_columns import Resource
from cumulet.network.sharing import EVERYBODY, Action, Shareable
from cumulet.network.store import Network, Port, delete, find, floating_ips, networks, ports, routers, subnets
from cumulet.network.subnet_pool_records import subnet_pools


def _on_network(tx: Tx, network_id: str) -> set[str]:
    own_devices = ports.c.device_owner.in_(ON_EXTERNAL)
    external_for = {entry.target_project for entry in sharing.entries(tx, network_id, Action.EXTERNAL)}
    return (
        _projects(tx, ports, ports.c.network_id == network_id, ~own_devices)
        | _projects(tx, subnets, subnets.c.network_id == network_id)
        | (set() if EVERYBODY in external_for else _outside(tx, network_id) - external_for)
    )


def _outside(tx: Tx, network_id: str) -> set[str]:
    gateways = sa.select(ports.c.id).where(ports.c.network_id == network_id, ports.c.device_owner == ROUTER_GATEWAY)
    return _projects(tx, routers, routers.c.gateway_port_id.in_(gateways)) | _projects(
        tx, floating_ips, floating_ips.c.floating_network_id == network_id
    )


def _in_group(tx: Tx, group_id: str) -> set[str]:
    members = sa.select(port_security_groups.c.port_id).where(port_security_groups.c.security_group_id == group_id)
    return _projects(tx, ports, ports.c.id.in_(members)) | _projects(
        tx, security_group_rules, security_group_rules.c.remote_group_id == group_id
    )


def _naming_addresses(tx: Tx, group_id: str) -> set[str]:
    return _projects(tx, security_group_rules, security_group_rules.c.remote_address_group_id == group_id)


def _cut_from(tx: Tx, pool_id: str) -> set[str]:
    return _projects(tx, subnets, subnets.c.subnetpool_id == pool_id)


def _limited(tx: Tx, policy_id: str) -> set[str]:
    tables = (networks, ports, floating_ips, routers)
    return set().union(*(_projects(tx, table, table.c.qos_policy_id == policy_id) for table in tables))


def _scoped(tx: Tx, scope_id: str) -> set[str]:
    return _projects(tx, subnet_pools, subnet_pools.c.address_scope_id == scope_id)


def _projects(tx: Tx, table: sa.Table, *where: sa.ColumnElement[bool]) -> set[str]:
    return {row[0] for row in tx.all(sa.select(table.c.project_id).where(*where).distinct())}


USERS: Mapping[tuple[str, str], Callable[[Tx, str], set[str]]] = {
    (Shareable.NETWORK, Action.SHARED): _on_network,
    (Shareable.NETWORK, Action.EXTERNAL): _outside,
    (Shareable.SECURITY_GROUP, Action.SHARED): _in_group,
    (Shareable.ADDRESS_GROUP, Action.SHARED): _naming_addresses,
    (Shareable.SUBNET_POOL, Action.SHARED): _cut_from,
    (Shareable.QOS_POLICY, Action.SHARED): _limited,
    (Shareable.ADDRESS_SCOPE, Action.SHARED): _scoped,
}
"""Functions that find the projects that use an object, by the kind of object and the action that they need."""


def losing(tx: Tx, policy: RbacPolicy, owner: str, *, instead: str | None = None) -> set[str]:
    """The projects that use an object and may not any more after a change: the policy goes, or is for `instead`.

    owner: the object's project.
    """
    before = {entry.target_project for entry in sharing.entries(tx, policy.object_id, Action(policy.action))}
    after = before - {policy.target_project} | ({instead} if instead is not None else set())
    if EVERYBODY in after:
        return set()
    using = USERS[policy.object_type, policy.action](tx, policy.object_id) - {owner} - after
    return using if EVERYBODY in before else using & before


def set_shared(tx: Tx, clock: Clock, object_type: Shareable, what: Resource, *, shared: bool) -> bool:
    """Share an object with every project, or no longer. True if that is a change. 409 while others use the object."""
    present = [entry for entry in sharing.entries(tx, what.id, Action.SHARED) if entry.target_project == EVERYBODY]
    if shared == bool(present):
        sharing.tell_older(tx, object_type, what.id, shared=shared)
        return False
    if shared:
        sharing.share(tx, clock, object_type, what.id, owner=what.project_id, target=EVERYBODY, action=Action.SHARED)
        return True
    if losing(tx, present[0], what.project_id):
        raise Conflict(
            f"Unable to reconfigure sharing settings for {object_type} {what.id}. Multiple projects are using it.",
            reason="InvalidSharedSetting",
        )
    end(tx, present[0])
    return True


def end(tx: Tx, policy: RbacPolicy) -> None:
    """Remove an RBAC policy."""
    delete(tx, RbacPolicy, policy.id)
    if policy.target_project == EVERYBODY and policy.action == Action.SHARED:
        sharing.tell_older(tx, policy.object_type, policy.object_id, shared=False)


def set_external(tx: Tx, clock: Clock, network: Network, *, external: bool) -> None:
    """Make a network external for every project, or not external. 409 while routers or floating IPs are on it."""
    if external and not network.external:
        sharing.share(
            tx, clock, Shareable.NETWORK, network.id, owner=network.project_id, target=EVERYBODY, action=Action.EXTERNAL
        )
    elif network.external and not external:
        if find(tx, Port, ports.c.network_id == network.id, ports.c.device_owner.in_(ON_EXTERNAL)):
            raise Conflict(
                f"External network {network.id} cannot be updated to be made non-external, "
                "since it has existing gateway ports.",
                reason="ExternalNetworkInUse",
            )
        sharing.end_all(tx, network.id, Action.EXTERNAL)
