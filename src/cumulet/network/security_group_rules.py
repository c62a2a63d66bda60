"""Rules of security groups: ``/security-group-rules``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.one_of import one_of
from cumulet.errors import BadRequest, Conflict
from cumulet.network import bodies, filtering, limits, policy, resource
from cumulet.network.address_groups import ADDRESS_GROUPS
from cumulet.network.bodies import either, text
from cumulet.network.group_records import SecurityGroup, SecurityGroupRule, security_group_rules, security_groups
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
from cumulet.network.security_groups import GROUPS, rule_view
from cumulet.network.service import NETWORK
from cumulet.network.sight import rules_in_sight
from cumulet.network.store import delete, find, find_by, insert, revise
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

CREATE = rule("create_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_MEMBER, description="Add a rule")
SHOW = rule("get_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_READER, description="See a rule")
DELETE = rule("delete_security_group_rule", policy.ADMIN_OR_GROUP_OWNER_MEMBER, description="Remove a rule")


def _of_protocol(values: Sequence[str]) -> sa.ColumnElement[bool]:
    column, any_of, found = security_group_rules.c.protocol, False, set[str]()
    for value in values:
        try:
            name = protocol_name(value)
        except ValueError as error:
            raise BadRequest(str(error), reason="SecurityGroupRuleInvalidProtocol") from None
        any_of |= name is None
        found |= set() if name is None else set(spellings(name))
    asked = one_of(column, sorted(found))
    return sa.or_(asked, column.is_(None)) if any_of else asked


def rule_views(tx: Tx, records: Sequence[SecurityGroupRule]) -> list[View]:
    """Rules as the API shows them."""
    groups = _groups_of(tx, records)
    return [rule_view(record, groups[record.security_group_id]) for record in records]


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
    show=SHOW,
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


def _first_facts(call: Call[object, object]) -> View:
    return _rule_facts(call, resource.items_of(call.body, "security_group_rule", "security_group_rules")[0][0], Known())


def _rule_facts(call: Call[object, object], new: NewRule, known: Known) -> View:
    group = known.group(call, new.security_group_id)
    return {"project_id": resource.owner(call, new), "security_group:project_id": group.project_id}


@NETWORK.operation(
    "POST", "/security-group-rules", rules=(Rule(CREATE),), facts=_first_facts, body=CreateRules, success=201
)
def create_security_group_rules(call: Call[None, CreateRules]) -> View:
    """Add a rule to a security group, or several at once."""
    known = Known()
    return resource.created(call, RULES, lambda new: create_rule(call, new, known))


class Known(msgspec.Struct):
    """What one request has read and made: groups in sight, and the ids of a group's rules, by their meaning."""

    groups: dict[str, SecurityGroup] = {}
    rules: dict[str, dict[tuple[object, ...], str]] = {}

    def group(self, call: Call[object, object], group_id: str) -> SecurityGroup:
        """404 for one out of sight. It is shown with all its rules, so it is looked for once."""
        if group_id not in self.groups:
            self.groups[group_id] = resource.find_in_sight(call, GROUPS, group_id)
        return self.groups[group_id]

    def of_group(self, tx: Tx, group_id: str) -> dict[tuple[object, ...], str]:
        if group_id not in self.rules:
            found = find_by(tx, SecurityGroupRule, security_group_id=group_id)
            self.rules[group_id] = {meaning(content_of(present)): present.id for present in found}
        return self.rules[group_id]


def create_rule(call: Call[object, object], new: NewRule, known: Known | None = None) -> SecurityGroupRule:
    """Add a rule, for this API and for Compute's older one. `known`: of the same request."""
    known = known or Known()
    tx, facts = call.tx, _rule_facts(call, new, known)
    call.require(CREATE, facts)
    limits.check(tx, str(facts["project_id"]), "security_group_rule")
    remote_group_id, address_group_id = either(new.remote_group_id, None), either(new.remote_address_group_id, None)
    if remote_group_id is not None:
        known.group(call, remote_group_id)
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
    present = known.of_group(tx, new.security_group_id)
    present_id = present.get(meaning(values))
    if present_id is not None:
        raise Conflict(
            f"Security group rule already exists. Rule id is {present_id}.", reason="SecurityGroupRuleExists"
        )
    revise(tx, SecurityGroup, new.security_group_id, call.now_us)
    made = insert(
        tx,
        SecurityGroupRule,
        call.cloud.clock,
        project_id=facts["project_id"],
        description=text(new.description),
        security_group_id=new.security_group_id,
        **values,
    )
    present[meaning(values)] = made.id
    return made


@NETWORK.operation("GET", "/security-group-rules/{security_group_rule_id}", rules=(), target=resource.target(RULES))
def show_security_group_rule(call: Call[SecurityGroupRule, None]) -> View:
    """Show a rule."""
    return resource.shown(call, RULES, call.target)


@NETWORK.operation(
    "DELETE",
    "/security-group-rules/{security_group_rule_id}",
    rules=(Rule(DELETE),),
    target=resource.target(RULES),
    facts=resource.target_facts(RULES),
    success=204,
)
def delete_security_group_rule(call: Call[SecurityGroupRule, None]) -> None:
    """Remove a rule."""
    delete(call.tx, SecurityGroupRule, call.target.id)
    revise(call.tx, SecurityGroup, call.target.security_group_id, call.now_us)
