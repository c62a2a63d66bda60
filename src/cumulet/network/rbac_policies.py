"""RBAC policies: ``/rbac-policies``. Each shares one object with one project, or with every project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import bodies, filtering, limits, policy, refusals, resource, sharing, sharing_use
from cumulet.network.address_groups import ADDRESS_GROUPS
from cumulet.network.address_scopes import ADDRESS_SCOPES
from cumulet.network.filtering import Filter
from cumulet.network.networks import NETWORKS
from cumulet.network.qos_policies import QOS_POLICIES
from cumulet.network.rbac_records import RbacPolicy, rbac_policies
from cumulet.network.resource import Kind, View
from cumulet.network.resource_columns import Resource
from cumulet.network.security_groups import GROUPS
from cumulet.network.service import NETWORK
from cumulet.network.sharing import EVERYBODY, Action, Shareable
from cumulet.network.sight import own_in_sight
from cumulet.network.store import Network, change, find_by, get, must_get, revise
from cumulet.network.subnet_pool_records import SubnetPool
from cumulet.network.subnet_pools import SUBNET_POOLS
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

_NOT_EVERYBODY = "(not field:rbac_policy:target_tenant=* and not field:rbac_policy:target_project=*)"
_TO_EVERYBODY = {
    "target_tenant": f"{policy.ADMIN} or {_NOT_EVERYBODY}",
    "target_project": f"{policy.ADMIN} or not field:rbac_policy:target_project=*",
}
base_rule("restrict_wildcard", f"{_NOT_EVERYBODY} or {policy.ADMIN}", "Only administrators share with everybody")

CREATE = rule("create_rbac_policy", policy.ADMIN_OR_PROJECT_MEMBER, description="Share something")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, _TO_EVERYBODY)
SHOW = rule("get_rbac_policy", policy.ADMIN_OR_PROJECT_READER, description="See with whom something is shared")
UPDATE = rule("update_rbac_policy", policy.ADMIN_OR_PROJECT_MEMBER, description="Share with another project instead")
UPDATE_ATTRIBUTES = policy.attribute_rules(UPDATE, _TO_EVERYBODY)
DELETE = rule("delete_rbac_policy", policy.ADMIN_OR_PROJECT_MEMBER, description="Share no longer")

PATH = "/rbac-policies/{rbac_policy_id}"
OBJECTS: Mapping[Shareable, Kind[Resource]] = {
    Shareable.NETWORK: NETWORKS,
    Shareable.SECURITY_GROUP: GROUPS,
    Shareable.ADDRESS_GROUP: ADDRESS_GROUPS,
    Shareable.SUBNET_POOL: SUBNET_POOLS,
    Shareable.QOS_POLICY: QOS_POLICIES,
    Shareable.ADDRESS_SCOPE: ADDRESS_SCOPES,
}
"""The kinds of objects that can be shared."""
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def _views(_tx: Tx, records: Sequence[RbacPolicy]) -> list[View]:
    return [
        {
            "id": record.id,
            "project_id": record.project_id,
            "tenant_id": record.project_id,
            "object_type": record.object_type,
            "object_id": record.object_id,
            "action": record.action,
            "target_tenant": record.target_project,
        }
        for record in records
    ]


def _filters() -> dict[str, Filter]:
    found = resource.filters_on(rbac_policies, "object_type", "object_id", "action")
    found["target_tenant"] = filtering.by_column(rbac_policies.c.target_project, "target_tenant")
    return {name: found[name] for name in found.keys() - {"description", "revision_number"}}


RBAC_POLICIES = Kind(
    record=RbacPolicy,
    singular="rbac_policy",
    plural="rbac_policies",
    title="RBAC policy",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, rbac_policies),
    filters=_filters(),
    sorts={},
    views=_views,
    hidden={},
)


def _object_type(value: str) -> str:
    try:
        return Shareable(value.strip().lower())
    except ValueError:
        raise ValueError(f"'{value}' is not a valid RBAC object type") from None


def _target(value: str) -> str:
    if value != EVERYBODY and _UUID.fullmatch(value) is None:
        raise ValueError(f"'{value}' is not a valid target project ID; expected a UUID or '*'")
    return value


Target = Annotated[str, Json({"maxLength": 64}), Convert(_target)]


class NewRbacPolicy(bodies.NewOwned):
    object_type: Annotated[str, Json({"maxLength": 255}), Convert(_object_type)]
    object_id: bodies.Id
    target_tenant: Target
    action: bodies.Name


class CreateRbacPolicies(Body):
    rbac_policy: NewRbacPolicy | Unset = UNSET
    rbac_policies: list[NewRbacPolicy] | Unset = UNSET


class UpdateRbacPolicy(Body):
    target_tenant: Target | Unset = UNSET


@NETWORK.operation("GET", "/rbac-policies", rules=())
def list_rbac_policies(call: Call[None, None]) -> View:
    """List the project's RBAC policies; for administrators all."""
    return resource.listed(call, RBAC_POLICIES)


@NETWORK.operation(
    "POST",
    "/rbac-policies",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(RBAC_POLICIES),
    body=CreateRbacPolicies,
    success=201,
)
def create_rbac_policies(call: Call[None, CreateRbacPolicies]) -> View:
    """Share something with a project or, for administrators, with everybody; or several things at once."""
    return resource.created(call, RBAC_POLICIES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewRbacPolicy) -> RbacPolicy:
    project_id = resource.owner(call, new)
    facts = {"project_id": project_id, "target_tenant": new.target_tenant, "target_project": new.target_tenant}
    call.require(CREATE, facts)
    policy.require_attributes(call, CREATE_ATTRIBUTES, ("target_tenant", "target_project"), facts)
    object_type = Shareable(new.object_type)
    shared = resource.find_in_sight(call, OBJECTS[object_type], new.object_id)
    _refuse_anothers(call, shared.project_id)
    action = _action(object_type, new.action)
    limits.check(call.tx, project_id, "rbac_policy")
    _refuse_twice(call.tx, new.object_id, action, new.target_tenant)
    _refuse_hidden_scope(call.tx, shared, new.target_tenant)
    if isinstance(shared, Network):
        external = shared.external or action is Action.EXTERNAL
        change(call.tx, Network, shared.id, call.now_us, True, external=external)
    return sharing.share(
        call.tx,
        call.cloud.clock,
        object_type,
        shared.id,
        owner=project_id,
        target=new.target_tenant,
        action=action,
    )


def _refuse_anothers(call: Call[object, object], owner: str) -> None:
    if owner != call.caller.project_id and not call.caller.is_admin:
        raise refusals.invalid("Only admins can manipulate policies on objects they do not own.")


def _refuse_hidden_scope(tx: Tx, shared: Resource, target: str) -> None:
    """409 for a subnet pool whose address scope is not shared with that project: its subnets would be in the scope."""
    if not isinstance(shared, SubnetPool) or shared.address_scope_id is None:
        return
    sharers = {entry.target_project for entry in sharing.entries(tx, shared.address_scope_id, Action.SHARED)}
    if sharers.isdisjoint((EVERYBODY, target)):
        raise Conflict(
            f"Failed to create RBAC policy on object {shared.id} because address scope {shared.address_scope_id} is "
            "not shared with that project.",
            reason="RbacPolicyInitError",
        )


def _action(object_type: Shareable, wanted: str) -> Action:
    possible = list(Action) if object_type is Shareable.NETWORK else [Action.SHARED]
    if wanted not in possible:
        raise refusals.invalid(
            f"Invalid action '{wanted}' for object type '{object_type}'. Valid actions: {', '.join(possible)}"
        )
    return Action(wanted)


def _refuse_twice(tx: Tx, object_id: str, action: str, target: str) -> None:
    if find_by(tx, RbacPolicy, object_id=object_id, action=action, target_project=target):
        raise Conflict("An RBAC policy already exists with those values.", reason="DuplicateRbacPolicy")


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(RBAC_POLICIES))
def show_rbac_policy(call: Call[RbacPolicy, None]) -> View:
    """Show with whom something is shared."""
    return resource.shown(call, RBAC_POLICIES, call.target)


@NETWORK.operation(
    "PUT",
    PATH,
    rules=(Rule(UPDATE),),
    target=resource.target(RBAC_POLICIES),
    body=UpdateRbacPolicy,
    body_key="rbac_policy",
)
def update_rbac_policy(call: Call[RbacPolicy, UpdateRbacPolicy]) -> View:
    """Share with another project instead; refused while the former one uses the object."""
    found, target = call.target, call.body.target_tenant
    if isinstance(target, str) and target != found.target_project:
        facts = {"project_id": found.project_id, "target_tenant": target, "target_project": target}
        policy.require_attributes(call, UPDATE_ATTRIBUTES, ("target_tenant", "target_project"), facts)
        shared = _object(call.tx, found)
        if shared is None:
            raise resource.unknown(OBJECTS[Shareable(found.object_type)], found.object_id)
        _refuse_anothers(call, shared.project_id)
        _refuse_twice(call.tx, found.object_id, found.action, target)
        _refuse_hidden_scope(call.tx, shared, target)
        _refuse_in_use(call.tx, found, shared, instead=target)
        change(call.tx, RbacPolicy, found.id, call.now_us, target_project=target)
        if found.action == Action.SHARED and EVERYBODY in (target, found.target_project):
            sharing.tell_older(call.tx, found.object_type, found.object_id, shared=target == EVERYBODY)
        _count(call, found)
    return resource.shown(call, RBAC_POLICIES, must_get(call.tx, RbacPolicy, found.id))


def _object(tx: Tx, found: RbacPolicy) -> Resource | None:
    """The object of a policy. None: a control plane of the version before deleted it and left the policy."""
    return get(tx, OBJECTS[Shareable(found.object_type)].record, found.object_id)


def _refuse_in_use(tx: Tx, found: RbacPolicy, shared: Resource, *, instead: str | None = None) -> None:
    why = ""
    of_default = isinstance(shared, Network) and shared.is_default and found.action == Action.EXTERNAL
    if of_default and found.target_project == EVERYBODY:
        why = "Default external networks must be shared to everyone."
    elif sharing_use.losing(tx, found, shared.project_id, instead=instead):
        why = "Other projects use it."
    if why:
        raise Conflict(
            f"RBAC policy on object {found.object_id} cannot be removed because other objects depend on it.\n"
            f"Details: {why}",
            reason="RbacPolicyInUse",
        )


def _count(call: Call[RbacPolicy, object], found: RbacPolicy) -> None:
    """Count the revision of a network whose policies change."""
    if found.object_type == Shareable.NETWORK:
        revise(call.tx, Network, found.object_id, call.now_us)


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(RBAC_POLICIES), success=204)
def delete_rbac_policy(call: Call[RbacPolicy, None]) -> None:
    """Share no longer; refused while a project uses it. A network whose last external policy goes is not external."""
    found, shared = call.target, _object(call.tx, call.target)
    if shared is not None:
        _refuse_in_use(call.tx, found, shared)
    others = [entry for entry in sharing.entries(call.tx, found.object_id, Action.EXTERNAL) if entry.id != found.id]
    if isinstance(shared, Network) and found.action == Action.EXTERNAL and not others:
        sharing_use.set_external(call.tx, call.cloud.clock, shared, external=False)
        change(call.tx, Network, shared.id, call.now_us, True, external=False)
    else:
        _count(call, found)
    sharing_use.end(call.tx, found)
