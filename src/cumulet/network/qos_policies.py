"""QoS policies: ``/qos/policies``. Named sets of rules for networks, ports and floating IPs."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import bodies, limits, policy, qos, resource, sharing, sharing_use, topology
from cumulet.network.bodies import either, text
from cumulet.network.many import find_many
from cumulet.network.qos_records import QosPolicy, qos_policies
from cumulet.network.qos_rule_types import RULE_TYPES
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import QOS_SHARING, Shareable
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import (
    change,
    delete,
    erase,
    find_by,
    insert,
    must_get,
    tags_of,
)
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import base_rule, rule
from cumulet.web.schema import UNSET, Body, Unset

base_rule("shared_qos_policy", "field:policies:shared=True", "A shared QoS policy")

_SEEN = f"{policy.ADMIN_OR_PROJECT_READER} or rule:shared_qos_policy"
CREATE = rule("create_policy", policy.ADMIN_OR_PROJECT_MANAGER, description="Create a QoS policy")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, {"tags": policy.ADMIN_OR_PROJECT_MANAGER})
SHOW = rule("get_policy", _SEEN, description="See a QoS policy")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, {"tags": _SEEN})
UPDATE = rule("update_policy", policy.ADMIN_OR_PROJECT_MANAGER, description="Change a QoS policy")
UPDATE_TAGS = rule("update_policy:tags", policy.ADMIN_OR_PROJECT_MANAGER, description="Tag a QoS policy")
DELETE = rule("delete_policy", policy.ADMIN_OR_PROJECT_MANAGER, description="Delete a QoS policy")
DELETE_TAGS = rule("delete_policy:tags", policy.ADMIN_OR_PROJECT_MANAGER, description="Remove tags of a QoS policy")

PATH = "/qos/policies/{policy_id}"


def _views(tx: Tx, records: Sequence[QosPolicy]) -> list[View]:
    ids = [record.id for record in records]
    tags, rules = tags_of(tx, ids), dict[str, list[View]]()
    for kind in RULE_TYPES.values():
        for one in sorted(find_many(tx, kind.record, "policy_id", ids), key=lambda one: one.id):
            about = {"id": one.id, "qos_policy_id": one.policy_id, "type": kind.name, **kind.values(one)}
            rules.setdefault(one.policy_id, []).append(about)
    return [
        resource.resource_view(record, tags.get(record.id, []))
        | {"name": record.name, "is_default": record.is_default, "rules": rules.get(record.id, [])}
        for record in records
    ]


QOS_POLICIES = Kind(
    record=QosPolicy,
    singular="policy",
    plural="policies",
    title="QoS policy",
    show=SHOW,
    sight=lambda caller: shared_in_sight(caller, QOS_SHARING),
    filters=resource.filters_on(qos_policies, "name", "is_default") | {"shared": QOS_SHARING},
    sorts=resource.sorts_on(qos_policies, "name"),
    views=_views,
    hidden=SHOW_ATTRIBUTES,
    sharing=QOS_SHARING,
    place="qos/policies",
)


class NewQosPolicy(bodies.NewNamed):
    shared: bodies.Truth | Unset = UNSET
    is_default: bodies.Truth | Unset = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateQosPolicies(Body):
    policy: NewQosPolicy | Unset = UNSET
    policies: list[NewQosPolicy] | Unset = UNSET


class UpdateQosPolicy(bodies.NamedChange):
    shared: bodies.Truth | Unset = UNSET
    is_default: bodies.Truth | Unset = UNSET


@NETWORK.operation("GET", "/qos/policies", rules=())
def list_qos_policies(call: Call[None, None]) -> View:
    """List the project's QoS policies and those shared with it; for administrators all."""
    return resource.listed(call, QOS_POLICIES)


@NETWORK.operation(
    "POST",
    "/qos/policies",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(QOS_POLICIES),
    body=CreateQosPolicies,
    success=201,
)
def create_qos_policies(call: Call[None, CreateQosPolicies]) -> View:
    """Create a QoS policy without rules, or several at once."""
    return resource.created(call, QOS_POLICIES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewQosPolicy) -> QosPolicy:
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    if either(new.shared, False):
        sharing.require_everybody(call, project_id)
    limits.check(call.tx, project_id, "qos_policy")
    is_default = either(new.is_default, False)
    if is_default:
        _refuse_second_default(call.tx, project_id)
    made = insert(
        call.tx,
        QosPolicy,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        is_default=is_default,
    )
    if either(new.shared, False):
        sharing_use.set_shared(call.tx, call.cloud.clock, Shareable.QOS_POLICY, made, shared=True)
    topology.set_tags(call.tx, made.id, either(new.tags, []))
    return made


def _refuse_second_default(tx: Tx, project_id: str, but: str = "") -> None:
    if any(other.id != but for other in find_by(tx, QosPolicy, project_id=project_id, is_default=True)):
        raise Conflict(f"A default QoS policy exists for project {project_id}.", reason="QoSPolicyDefaultAlreadyExists")


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(QOS_POLICIES))
def show_qos_policy(call: Call[QosPolicy, None]) -> View:
    """Show a QoS policy with its rules."""
    return resource.shown(call, QOS_POLICIES, call.target)


@NETWORK.operation(
    "PUT",
    PATH,
    rules=(Rule(UPDATE),),
    target=resource.target(QOS_POLICIES),
    body=UpdateQosPolicy,
    body_key="policy",
)
def update_qos_policy(call: Call[QosPolicy, UpdateQosPolicy]) -> View:
    """Change a QoS policy's name, whether it is shared, and whether new networks of its project have it."""
    found, body, touched = call.target, call.body, False
    values = {name: value for name, value in resource.given(body).items() if name != "shared"}
    if body.is_default is True:
        _refuse_second_default(call.tx, found.project_id, but=found.id)
    if isinstance(body.shared, bool):
        if body.shared:
            sharing.require_everybody(call, found.project_id)
        touched = sharing_use.set_shared(call.tx, call.cloud.clock, Shareable.QOS_POLICY, found, shared=body.shared)
    change(call.tx, QosPolicy, found.id, call.now_us, touched, **values)
    return resource.shown(call, QOS_POLICIES, must_get(call.tx, QosPolicy, found.id))


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(QOS_POLICIES), success=204)
def delete_qos_policy(call: Call[QosPolicy, None]) -> None:
    """Delete a QoS policy that is not in use, with its rules."""
    found = call.target
    for kind, user_id, _ in qos.users(call.tx, found.id):
        raise Conflict(f"QoS Policy {found.id} is used by {kind} {user_id}.", reason="QosPolicyInUse")
    for rules in RULE_TYPES.values():
        erase(call.tx, rules.table, policy_id=found.id)
    delete(call.tx, QosPolicy, found.id)
