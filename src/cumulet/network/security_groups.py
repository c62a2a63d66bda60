"""Security groups: ``/security-groups``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import bodies, default_rules, default_security_group, limits, policy, resource, topology
from cumulet.network.bodies import either, text
from cumulet.network.group_records import (
    SecurityGroup,
    SecurityGroupRule,
    port_security_groups,
    security_group_rules,
    security_groups,
)
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sharing import GROUP_SHARING
from cumulet.network.sight import shared_in_sight
from cumulet.network.store import change, delete, find, insert, must_get, tags_of
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

_SEEN = f"{policy.ADMIN_OR_PROJECT_READER} or rule:shared_security_group"

CREATE = rule("create_security_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Create a security group")
CREATE_ATTRIBUTES = policy.attribute_rules(CREATE, {"tags": policy.ADMIN_OR_PROJECT_MEMBER})
SHOW = rule("get_security_group", _SEEN, description="See a security group")
SHOW_ATTRIBUTES = policy.attribute_rules(SHOW, {"tags": _SEEN})
UPDATE = rule("update_security_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Change a security group")
UPDATE_TAGS = rule("update_security_group:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Tag a security group")
DELETE = rule("delete_security_group", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete a security group")
DELETE_TAGS = rule(
    "delete_security_group:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Remove tags of a security group"
)
CREATE_DEFAULT = rule(
    "create_default_security_group",
    f"{policy.ADMIN_OR_SERVICE} or {policy.PROJECT_READER}",
    description="Have the default security group made",
)


def rule_view(record: SecurityGroupRule, group: SecurityGroup) -> View:
    """A rule as the API shows it, by itself and in its group."""
    prefix = record.remote_ip_prefix
    return resource.resource_view(record, None) | {
        "security_group_id": record.security_group_id,
        "direction": record.direction,
        "ethertype": record.ethertype,
        "protocol": record.protocol,
        "port_range_min": record.port_range_min,
        "port_range_max": record.port_range_max,
        "remote_ip_prefix": prefix,
        "remote_group_id": record.remote_group_id,
        "remote_address_group_id": record.remote_address_group_id,
        "normalized_cidr": str(ip_network(prefix, strict=False)) if prefix else None,
        "belongs_to_default_sg": group.is_default,
    }


def group_views(tx: Tx, records: Sequence[SecurityGroup]) -> list[View]:
    """Security groups with their rules, as the API shows them."""
    ids = [group.id for group in records]
    tags = tags_of(tx, ids)
    contained: dict[str, list[SecurityGroupRule]] = {group_id: [] for group_id in ids}
    for found in find(tx, SecurityGroupRule, security_group_rules.c.security_group_id.in_(ids)):
        contained[found.security_group_id].append(found)
    return [
        resource.resource_view(group, tags.get(group.id, []))
        | {
            "name": group.name,
            "stateful": group.stateful,
            "security_group_rules": [
                rule_view(one, group)
                for one in sorted(contained[group.id], key=lambda one: (one.created_at_us, one.id))
            ],
        }
        for group in records
    ]


GROUPS = Kind(
    record=SecurityGroup,
    singular="security_group",
    plural="security_groups",
    title="Security group",
    show=SHOW,
    sight=lambda caller: shared_in_sight(caller, GROUP_SHARING),
    filters=resource.filters_on(security_groups, "name", "stateful") | {"shared": GROUP_SHARING},
    sorts=resource.sorts_on(security_groups, "name"),
    views=group_views,
    hidden=SHOW_ATTRIBUTES,
    sharing=GROUP_SHARING,
)


class NewSecurityGroup(bodies.NewNamed):
    stateful: bodies.Truth | Unset = UNSET
    tags: bodies.Tags | Unset = UNSET


class CreateSecurityGroups(Body):
    security_group: NewSecurityGroup | Unset = UNSET
    security_groups: list[NewSecurityGroup] | Unset = UNSET


class UpdateSecurityGroup(bodies.NamedChange):
    stateful: bodies.Truth | Unset = UNSET


@NETWORK.operation("GET", "/security-groups", rules=())
async def list_security_groups(call: Call[None, None]) -> View:
    """List the project's security groups, the default one among them; for administrators all."""

    def listed(tx: Tx) -> View:
        call.tx = tx
        return resource.listed(call, GROUPS)

    await ensure_default(call)
    return await call.cloud.db.read_async(listed)


async def ensure_default(call: Call[object, object]) -> None:
    """Before a list: make the default group of the caller's project, if there is none and the caller may."""
    database, project_id = call.cloud.db, call.caller.project_id
    if (
        project_id is not None
        and call.authorise(CREATE_DEFAULT, {"project_id": project_id})
        and not await database.read_async(lambda tx: default_security_group.exists(tx, project_id))
    ):
        # A list request writes only here, once for each project.
        await database.write_async(lambda tx: default_security_group.ensure(tx, call.cloud.clock, project_id))


@NETWORK.operation(
    "POST",
    "/security-groups",
    rules=(Rule(CREATE),),
    facts=resource.first_owner(GROUPS),
    body=CreateSecurityGroups,
    success=201,
)
def create_security_groups(call: Call[None, CreateSecurityGroups]) -> View:
    """Create a security group, or several at once."""
    return resource.created(call, GROUPS, lambda new: create(call, new))


def create(call: Call[object, object], new: NewSecurityGroup) -> SecurityGroup:
    """Create a security group, for this API and for Compute's older one."""
    project_id = resource.may_create(call, new, CREATE, CREATE_ATTRIBUTES)
    clock = call.cloud.clock
    name = text(new.name)
    _refuse_default_name(name)
    default_security_group.ensure(call.tx, clock, project_id)
    limits.check(call.tx, project_id, "security_group")
    first = default_rules.of_new_group(call.tx, default=False)
    limits.check(call.tx, project_id, "security_group_rule", len(first))
    group = insert(
        call.tx,
        SecurityGroup,
        clock,
        project_id=project_id,
        name=name,
        description=text(new.description),
        stateful=either(new.stateful, True),
        is_default=False,
    )
    topology.set_tags(call.tx, group.id, either(new.tags, []))
    default_security_group.begin_with(call.tx, clock, group, first)
    return group


def _refuse_default_name(name: str) -> None:
    if name == default_security_group.NAME:
        raise Conflict("Default security group already exists.", reason="SecurityGroupDefaultAlreadyExists")


@NETWORK.operation("GET", "/security-groups/{security_group_id}", rules=(), target=resource.target(GROUPS))
def show_security_group(call: Call[SecurityGroup, None]) -> View:
    """Show a security group with its rules."""
    return resource.shown(call, GROUPS, call.target)


@NETWORK.operation(
    "PUT",
    "/security-groups/{security_group_id}",
    rules=(Rule(UPDATE),),
    target=resource.target(GROUPS),
    body=UpdateSecurityGroup,
    body_key="security_group",
)
def update_security_group(call: Call[SecurityGroup, UpdateSecurityGroup]) -> View:
    """Change a security group's name, description or statefulness."""
    return resource.shown(call, GROUPS, update(call, call.target, call.body))


def update(call: Call[object, object], group: SecurityGroup, body: UpdateSecurityGroup) -> SecurityGroup:
    """Change a security group, for this API and for Compute's older one."""
    values = resource.given(body)
    if isinstance(body.name, str) and body.name != group.name:
        if group.is_default:
            raise Conflict("Updating default security group not allowed.", reason="SecurityGroupCannotUpdateDefault")
        _refuse_default_name(body.name)
    if either(body.stateful, group.stateful) != group.stateful and _in_use(call.tx, group.id):
        raise Conflict(f"Security Group {group.id} in use.", reason="SecurityGroupInUse")
    change(call.tx, SecurityGroup, group.id, call.now_us, **values)
    return must_get(call.tx, SecurityGroup, group.id)


def _in_use(tx: Tx, group_id: str) -> bool:
    members = sa.select(port_security_groups.c.port_id).where(port_security_groups.c.security_group_id == group_id)
    return tx.first(members.limit(1)) is not None


@NETWORK.operation(
    "DELETE",
    "/security-groups/{security_group_id}",
    rules=(Rule(DELETE),),
    target=resource.target(GROUPS),
    success=204,
)
def delete_security_group(call: Call[SecurityGroup, None]) -> None:
    """Delete a security group that no port is a member of."""
    group = call.target
    if _in_use(call.tx, group.id):
        raise Conflict(f"Security Group {group.id} in use.", reason="SecurityGroupInUse")
    if group.is_default and not call.caller.is_admin:
        raise Conflict(
            "Insufficient rights for removing default security group.", reason="SecurityGroupCannotRemoveDefault"
        )
    delete(call.tx, SecurityGroup, group.id)
