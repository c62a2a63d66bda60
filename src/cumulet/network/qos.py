"""Which QoS policy is in force, and who may set and take it away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden, NotFound
from cumulet.network import hosts
from cumulet.network.hosts import BANDWIDTH_LIMITS, DSCP_MARKS
from cumulet.network.many import find_many
from cumulet.network.qos_records import BandwidthLimit, DscpMark, QosPolicy, qos_policies
from cumulet.network.sharing import QOS_SHARING
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import Network, Port, find, find_by
from cumulet.web.operation import Call
from cumulet.web.schema import Unset


def _usable(call: Call[object, object], policy_id: str) -> bool:
    return bool(find(call.tx, QosPolicy, qos_policies.c.id == policy_id, shared_in_sight(call.caller, QOS_SHARING)))


def wanted(call: Call[object, object], policy_id: str | Unset | None, feature: str) -> str | None:
    """The policy that a new thing shall have. 404 for one out of sight, 501 where a host could not keep it."""
    if not isinstance(policy_id, str):
        return None
    if not _usable(call, policy_id):
        raise NotFound(f"QoS policy {policy_id} could not be found.", reason="QosPolicyNotFound")
    hosts.require(call.tx, feature)
    if feature == BANDWIDTH_LIMITS and marks(call.tx, {policy_id}):
        hosts.require(call.tx, DSCP_MARKS)
    return policy_id


def changed(call: Call[object, object], present: str | None, policy_id: str | Unset | None, feature: str) -> str | None:
    """The policy that a thing shall have from now on. 403 for who may not take the present one away."""
    if isinstance(policy_id, Unset) or policy_id == present:
        return present
    if present is not None and not _usable(call, present):
        raise Forbidden(
            f"Failed to remove provided policy {present} because you are not authorized.",
            reason="PolicyRemoveAuthorizationError",
        )
    return wanted(call, policy_id, feature)


def default_of(tx: Tx, project_id: str) -> str | None:
    """The policy that new networks of a project have, where nothing else is said."""
    found = find_by(tx, QosPolicy, project_id=project_id, is_default=True)
    return found[0].id if found else None


def of_new_network(call: Call[object, object], project_id: str, policy_id: str | Unset | None) -> str | None:
    """The policy that a new network shall have: the one named, or the project's default one."""
    if isinstance(policy_id, Unset):
        return default_of(call.tx, project_id)
    return wanted(call, policy_id, BANDWIDTH_LIMITS)


def of_networks(tx: Tx, ports: Sequence[Port]) -> dict[str, str]:
    """The policies of these ports' networks, by network."""
    found = find_many(tx, Network, "id", {port.network_id for port in ports})
    return {network.id: network.qos_policy_id for network in found if network.qos_policy_id is not None}


def limits(tx: Tx, policy_ids: set[str]) -> Mapping[tuple[str, str], BandwidthLimit]:
    """What limits bandwidth, by policy and direction."""
    found = find_many(tx, BandwidthLimit, "policy_id", policy_ids) if policy_ids else []
    return {(limit.policy_id, limit.direction): limit for limit in found if limit.max_kbps}


def marks(tx: Tx, policy_ids: set[str]) -> Mapping[str, int]:
    """The DSCP mark of each policy that has one."""
    found = find_many(tx, DscpMark, "policy_id", policy_ids) if policy_ids else []
    return {mark.policy_id: mark.dscp_mark for mark in found}


def features_needed(tx: Tx, server_id: str) -> frozenset[str]:
    """What a host must offer to keep the policies of a server's ports."""
    ports = find_by(tx, Port, server_id=server_id)
    found = {port.qos_policy_id for port in ports} | set(of_networks(tx, ports).values())
    policies = {policy for policy in found if policy is not None}
    needed = {BANDWIDTH_LIMITS: limits(tx, policies), DSCP_MARKS: marks(tx, policies)}
    return frozenset(feature for feature, rules in needed.items() if rules)
