"""Security groups and their rules: ``/security-groups``, ``/security-group-rules``."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Annotated, Literal

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.network import bodies, default_rules, default_security_group, filtering, limits, policy, resource, topology
from cumulet.network.address_groups import ADDRESS_GROUPS
from cumulet.network.bodies import either, text
from cumulet.network.group_records import (
    SecurityGroup,
    SecurityGroupRule,
    port_security_groups,
    security_group_rules,
    security_groups,
)
from cumulet.network.resource import Kind, View
from cumulet.network.rule_meaning import (
    RuleContent,
    check_rule,
    content_of,
    ethertype,
    ethertype_asked,
    meaning,
    protocol_name,
    spellings,
)
from cumulet.network.service import NETWORK
from cumulet.network.sharing import GROUP_SHARING
from cumulet.network.sight import rules_in_sight, shared_in_sight
from cumulet.network.store import change, delete, find, find_by, insert, must_get, revise, tags_of
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

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
CREATE_RULE = rule("create_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_MEMBER, description="Add a rule")
SHOW_RULE = rule("get_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_READER, description="See a rule")
DELETE_RULE = rule("delete_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_MEMBER, description="Remove a rule")


def _of_protocol(values: Sequence[str]) -> sa.ColumnElement[bool]:
    conditions: list[sa.ColumnElement[bool]] = []
    for value in values:
        try:
            name = protocol_name(value)
        except ValueError as error:
            raise BadRequest(str(error), reason="SecurityGroupRuleInvalidProtocol") from None
        column = security_group_rules.c.protocol
        conditions.append(column.is_(None) if name is None else column.in_(spellings(name)))
    return sa.or_(*conditions)


# -- groups


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
                _rule_view(one, group)
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
    database, project_id = call.cloud.db, call.caller.project_id

    def listed(tx: Tx) -> View:
        call.tx = tx
        return resource.listed(call, GROUPS)

    if (
        project_id is not None
        and call.authorise(CREATE_DEFAULT, {"project_id": project_id})
        and not await database.read_async(lambda tx: default_security_group.exists(tx, project_id))
    ):
        # A list request writes only here, once for each project.
        await database.write_async(lambda tx: default_security_group.ensure(tx, call.cloud.clock, project_id))
    return await database.read_async(listed)


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


# -- rules


def _rule_view(record: SecurityGroupRule, group: SecurityGroup) -> View:
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


def rule_views(tx: Tx, records: Sequence[SecurityGroupRule]) -> list[View]:
    """Rules as the API shows them."""
    groups = _groups_of(tx, records)
    return [_rule_view(record, groups[record.security_group_id]) for record in records]


def _groups_of(tx: Tx, records: Sequence[SecurityGroupRule]) -> dict[str, SecurityGroup]:
    ids = list({record.security_group_id for record in records})
    return {group.id: group for group in find(tx, SecurityGroup, security_groups.c.id.in_(ids))}


def _group_facts(tx: Tx, records: Sequence[SecurityGroupRule]) -> list[View]:
    groups = _groups_of(tx, records)
    return [{"security_group:project_id": groups[record.security_group_id].project_id} for record in records]


def _in_default_group(values: Sequence[str]) -> sa.ColumnElement[bool]:
    of_default = sa.select(security_groups.c.id).where(
        filtering.by_column(security_groups.c.is_default, "belongs_to_default_sg")(values)
    )
    return security_group_rules.c.security_group_id.in_(of_default)


_REMOTE = ("remote_group_id", "remote_address_group_id")
_QUERIED = ("security_group_id", *_REMOTE, "direction", "port_range_min", "port_range_max")

RULES = Kind(
    record=SecurityGroupRule,
    singular="security_group_rule",
    plural="security_group_rules",
    title="Security group rule",
    show=SHOW_RULE,
    sight=rules_in_sight,
    filters=resource.filters_on(
        security_group_rules, *_QUERIED, ethertype=ethertype_asked, remote_ip_prefix=filtering.prefix
    )
    | {
        "protocol": _of_protocol,
        "normalized_cidr": filtering.by_column(
            security_group_rules.c.remote_ip_prefix, "normalized_cidr", filtering.prefix
        ),
        "belongs_to_default_sg": _in_default_group,
    },
    sorts=resource.sorts_on(security_group_rules, *_QUERIED, "protocol", "ethertype", "remote_ip_prefix")
    | {"normalized_cidr": security_group_rules.c.remote_ip_prefix},
    views=rule_views,
    hidden={},
    parents=_group_facts,
)


class NewRule(bodies.NewResource):
    security_group_id: bodies.Name
    direction: Literal["ingress", "egress"]
    ethertype: Annotated[str, Json({"maxLength": 8}), Convert(ethertype)] | Unset = UNSET
    protocol: Annotated[str | int | Unset | None, Convert(protocol_name)] = UNSET
    port_range_min: bodies.Number | Unset | None = UNSET
    port_range_max: bodies.Number | Unset | None = UNSET
    remote_ip_prefix: bodies.SubnetRange | Unset | None = UNSET
    remote_group_id: bodies.Name | Unset | None = UNSET
    remote_address_group_id: bodies.Id | Unset | None = UNSET


class CreateRules(Body):
    security_group_rule: NewRule | Unset = UNSET
    security_group_rules: list[NewRule] | Unset = UNSET


@NETWORK.operation("GET", "/security-group-rules", rules=())
def list_security_group_rules(call: Call[None, None]) -> View:
    """List the rules of the project's security groups; for administrators all."""
    return resource.listed(call, RULES)


def _rule_facts(call: Call[object, object], new: NewRule | None = None) -> View:
    if new is None:
        new = resource.items_of(call.body, "security_group_rule", "security_group_rules")[0][0]
    group = resource.find_in_sight(call, GROUPS, new.security_group_id)
    return {"project_id": resource.owner(call, new), "security_group:project_id": group.project_id}


@NETWORK.operation(
    "POST", "/security-group-rules", rules=(Rule(CREATE_RULE),), facts=_rule_facts, body=CreateRules, success=201
)
def create_security_group_rules(call: Call[None, CreateRules]) -> View:
    """Add a rule to a security group, or several at once."""
    return resource.created(call, RULES, lambda new: create_rule(call, new))


def create_rule(call: Call[object, object], new: NewRule) -> SecurityGroupRule:
    """Add a rule, for this API and for Compute's older one."""
    tx, facts = call.tx, _rule_facts(call, new)
    call.require(CREATE_RULE, facts)
    limits.check(tx, str(facts["project_id"]), "security_group_rule")
    remote_group_id, address_group_id = either(new.remote_group_id, None), either(new.remote_address_group_id, None)
    if remote_group_id is not None:
        resource.find_in_sight(call, GROUPS, remote_group_id)
    if address_group_id is not None:
        resource.find_in_sight(call, ADDRESS_GROUPS, address_group_id)
    values: RuleContent = {
        "direction": new.direction,
        "ethertype": either(new.ethertype, "IPv4"),
        "protocol": either(new.protocol, None),
        "port_range_min": either(new.port_range_min, None),
        "port_range_max": either(new.port_range_max, None),
        "remote_ip_prefix": either(new.remote_ip_prefix, None),
        "remote_group_id": remote_group_id,
        "remote_address_group_id": address_group_id,
    }
    check_rule(values)
    for present in find_by(tx, SecurityGroupRule, security_group_id=new.security_group_id):
        if meaning(content_of(present)) == meaning(values):
            raise Conflict(
                f"Security group rule already exists. Rule id is {present.id}.", reason="SecurityGroupRuleExists"
            )
    revise(tx, SecurityGroup, new.security_group_id, call.now_us)
    return insert(
        tx,
        SecurityGroupRule,
        call.cloud.clock,
        project_id=facts["project_id"],
        description=text(new.description),
        security_group_id=new.security_group_id,
        **values,
    )


@NETWORK.operation("GET", "/security-group-rules/{security_group_rule_id}", rules=(), target=resource.target(RULES))
def show_security_group_rule(call: Call[SecurityGroupRule, None]) -> View:
    """Show a rule."""
    return resource.shown(call, RULES, call.target)


@NETWORK.operation(
    "DELETE",
    "/security-group-rules/{security_group_rule_id}",
    rules=(Rule(DELETE_RULE),),
    target=resource.target(RULES),
    facts=resource.target_facts(RULES),
    success=204,
)
def delete_security_group_rule(call: Call[SecurityGroupRule, None]) -> None:
    """Remove a rule."""
    delete(call.tx, SecurityGroupRule, call.target.id)
    revise(call.tx, SecurityGroup, call.target.security_group_id, call.now_us)
