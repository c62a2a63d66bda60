"""QoS policies of networks, ports and floating IPs: who may set and remove one, and which one is in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden, NotFound
from cumulet.network import hosts, trunk_ports
from cumulet.network.hosts import BANDWIDTH_LIMITS, FLOATING_IP_LIMITS, GATEWAY_LIMITS
from cumulet.network.many import find_many
from cumulet.network.qos_records import BandwidthLimit, DscpMark, QosPolicy, qos_policies
from cumulet.network.qos_rule_types import RULE_TYPES, RuleType
from cumulet.network.sharing import QOS_SHARING
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import Network, Port, find, find_by, floating_ips, networks, ports, routers
from cumulet.web.operation import Call
from cumulet.web.schema import Unset

_PROMISES = frozenset({hosts.MINIMUM_BANDWIDTHS, hosts.MINIMUM_PACKET_RATES})
"""What a rule of these types says of a floating IP or a gateway would be ignored, so that is refused, too."""
_USERS = (
    ("port", ports, BANDWIDTH_LIMITS),
    ("network", networks, BANDWIDTH_LIMITS),
    ("floatingip", floating_ips, FLOATING_IP_LIMITS),
    ("router", routers, GATEWAY_LIMITS),
)


def _usable(call: Call[object, object], policy_id: str) -> bool:
    return bool(find(call.tx, QosPolicy, qos_policies.c.id == policy_id, shared_in_sight(call.caller, QOS_SHARING)))


def wanted(call: Call[object, object], policy_id: str | Unset | None, feature: str) -> str | None:
    """The wanted policy of a new resource; None if absent. 404 for one out of sight, 501 if a host lacks a feature."""
    if not isinstance(policy_id, str):
        return None
    if not _usable(call, policy_id):
        raise NotFound(f"QoS policy {policy_id} could not be found.", reason="QosPolicyNotFound")
    _require_kept(call.tx, policy_id, feature)
    return policy_id


def _require_kept(tx: Tx, policy_id: str, feature: str) -> None:
    """501 where a host could not keep a policy. `feature`: what hosts say of the kind of thing that has it."""
    hosts.require(tx, feature)
    for needed in _features(tx, {policy_id}):
        if feature == BANDWIDTH_LIMITS or needed in _PROMISES:
            hosts.require(tx, needed)


def users(tx: Tx, policy_id: str) -> Iterator[tuple[str, str, str]]:
    """One thing of each kind that has a policy: the kind, its id, and what hosts say of the kind."""
    for kind, table, feature in _USERS:
        found = tx.first(sa.select(table.c.id).where(table.c.qos_policy_id == policy_id).limit(1))
        if found is not None:
            yield kind, found[0], feature


def require_rule_kept(tx: Tx, policy_id: str, rules: RuleType) -> None:
    """501 where a host could not keep one more rule of this type for what has the policy. Of floating IPs and gateways
    bandwidth is limited, and no more, as upstream; but what promises something is refused."""
    for _, _, feature in users(tx, policy_id):
        if feature == BANDWIDTH_LIMITS or rules.feature in _PROMISES:
            hosts.require(tx, rules.feature)
        elif rules.feature == BANDWIDTH_LIMITS:
            hosts.require(tx, feature)


def changed(call: Call[object, object], present: str | None, policy_id: str | Unset | None, feature: str) -> str | None:
    """The policy of a resource after a change. 403 for a caller who may not remove the present one."""
    if isinstance(policy_id, Unset) or policy_id == present:
        return present
    if present is not None and not _usable(call, present):
        raise Forbidden(
            f"Failed to remove provided policy {present} because you are not authorized.",
            reason="PolicyRemoveAuthorizationError",
        )
    return wanted(call, policy_id, feature)


def default_of(tx: Tx, project_id: str) -> str | None:
    """The default policy of a project for its new networks; None without one."""
    found = find_by(tx, QosPolicy, project_id=project_id, is_default=True)
    return found[0].id if found else None


def of_new_network(call: Call[object, object], project_id: str, policy_id: str | Unset | None) -> str | None:
    """The policy of a new network: the wanted one, else the project's default."""
    if not isinstance(policy_id, Unset):
        return wanted(call, policy_id, BANDWIDTH_LIMITS)
    default = default_of(call.tx, project_id)
    if default is not None:
        _require_kept(call.tx, default, BANDWIDTH_LIMITS)
    return default


class OnNetwork(Protocol):
    """A port, or what is read of one."""

    @property
    def network_id(self) -> str: ...


def of_networks(tx: Tx, of: Sequence[OnNetwork]) -> dict[str, str]:
    """The policies of these ports' networks, by network."""
    found = find_many(tx, Network, "id", {port.network_id for port in of})
    return {network.id: network.qos_policy_id for network in found if network.qos_policy_id is not None}


def limits(tx: Tx, policy_ids: set[str]) -> Mapping[tuple[str, str], BandwidthLimit]:
    """The bandwidth limits of these policies, by policy and direction."""
    found = find_many(tx, BandwidthLimit, "policy_id", policy_ids) if policy_ids else []
    return {(limit.policy_id, limit.direction): limit for limit in found if limit.max_kbps}


def marks(tx: Tx, policy_ids: set[str]) -> Mapping[str, int]:
    """The DSCP mark of each policy that has one."""
    found = find_many(tx, DscpMark, "policy_id", policy_ids) if policy_ids else []
    return {mark.policy_id: mark.dscp_mark for mark in found}


def features_needed(tx: Tx, server_id: str) -> frozenset[str]:
    """What a host must offer to keep the policies of a server's ports."""
    return features_of_ports(tx, find_by(tx, Port, server_id=server_id))


def features_of_port(tx: Tx, port_id: str) -> frozenset[str]:
    """What a host must offer to keep the policies of one port."""
    return features_of_ports(tx, find_by(tx, Port, id=port_id))


def features_of_ports(tx: Tx, of: Sequence[Port]) -> frozenset[str]:
    """What a host must offer to keep the policies of these ports, and of the subports that they carry."""
    subports = trunk_ports.subports_of(tx, [port.id for port in of])
    of = [*of, *find_many(tx, Port, "id", subports)]
    found = {port.qos_policy_id for port in of} | set(of_networks(tx, of).values())
    policies = {policy for policy in found if policy is not None}
    return _features(tx, policies)


def _features(tx: Tx, policy_ids: set[str]) -> frozenset[str]:
    """What a host must offer to keep the rules of these policies for ports."""
    return frozenset(
        rules.feature
        for rules in RULE_TYPES.values()
        if policy_ids and any(map(rules.asks, find_many(tx, rules.record, "policy_id", policy_ids)))
    )
