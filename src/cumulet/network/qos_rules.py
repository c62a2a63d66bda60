"""Rules of QoS policies, and which types of rules the hosts keep. A rule is also found by its own id alone (aliases).

Every type has the same operations, on ``/qos/policies/{policy_id}/TYPE_rules`` and ``/qos/alias_TYPE_rules/{id}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotFound
from cumulet.network import hosts, policy, qos, resource
from cumulet.network.qos_policies import PATH as POLICY
from cumulet.network.qos_policies import QOS_POLICIES
from cumulet.network.qos_records import QosPolicy, QosRule
from cumulet.network.qos_rule_types import RULE_TYPES, RuleType, clash
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import change, delete, find_by, insert, must_get, revise
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body

CallT = TypeVar("CallT")
AnswerT = TypeVar("AnswerT")

_CHANGERS = "(rule:admin_only) or (role:manager and rule:ext_parent_owner)"
SHOW_TYPE = rule("get_rule_type", "role:reader", description="See which types of QoS rules there are")


def _parents(_tx: Tx, records: Sequence[QosRule]) -> list[View]:
    return [{"ext_parent:project_id": record.project_id} for record in records]


def kind_of(rules: RuleType, show: str) -> Kind[QosRule]:
    """The rules of one type as resources. `show`: the rule of policy to see one."""
    found = resource.filters_on(rules.table, *rules.columns)
    names = ("id", *rules.columns)
    return Kind(
        record=rules.record,
        singular=f"{rules.name}_rule",
        plural=f"{rules.name}_rules",
        title="QoS rule",
        show=show,
        sight=lambda caller: own_in_sight(caller, rules.table),
        filters={name: found[name] for name in names},
        sorts={name: rules.table.c[name] for name in names},
        views=lambda _tx, records: [{"id": record.id, **rules.values(record)} for record in records],
        hidden={},
        parents=_parents,
    )


def _policy(call: Call[object, object]) -> QosPolicy:
    return resource.find_in_sight(call, QOS_POLICIES, call.path["policy_id"])


def _facts(call: Call[QosPolicy, object]) -> View:
    return {"ext_parent:project_id": call.target.project_id}


def _refuse_second(
    tx: Tx, rules: RuleType, policy_id: str, values: Mapping[str, object], but: str | None = None
) -> None:
    same = {} if rules.by is None else {rules.by: values[rules.by]}
    for other in find_by(tx, rules.record, policy_id=policy_id, **same):
        if other.id != but:
            raise Conflict(
                f"Rule {rules.name} conflicts with rule {other.id} which already exists in QoS Policy {policy_id}.",
                reason="QoSRulesConflict",
            )


def _refuse_clash(
    tx: Tx, rules: RuleType, policy_id: str, values: Mapping[str, object], but: str | None = None
) -> None:
    for other in RULE_TYPES.values():
        for there in find_by(tx, other.record, policy_id=policy_id):
            found = clash(rules, values, other, other.values(there)) if there.id != but else None
            if found is not None:
                raise Conflict(
                    f"Unable to add the rule with value {found[0]} to the policy {policy_id} as the existing rule of "
                    f"type {other.name} has value {found[1]}.",
                    reason="QoSRuleParameterConflict",
                )


def _declare(rules: RuleType) -> None:
    """The operations on the rules of one type."""
    singular, alias = f"{rules.name}_rule", f"alias_{rules.name}_rule"
    path, rule_path = f"{POLICY}/{singular}s", f"{POLICY}/{singular}s/{{{singular}_id}}"
    alias_path = f"/qos/{alias}s/{{{alias}_id}}"
    seen = policy.ADMIN_OR_PARENT_OWNER_READER

    def policies(name: str, *, follows: str | None = None) -> tuple[str, str, str]:
        """The names of the policy rules to see, change and delete one. They refer to those of `follows`, if given."""

        def check(verb: str, own: str) -> str:
            return own if follows is None else f"rule:{verb}_{follows}"

        return (
            rule(f"get_{name}", check("get", seen), description=f"See {rules.title}"),
            rule(f"update_{name}", check("update", _CHANGERS), description=f"Change {rules.title}"),
            rule(f"delete_{name}", check("delete", _CHANGERS), description=f"Take away {rules.title}"),
        )

    show, update, remove = policies(f"policy_{singular}")
    create = rule(f"create_policy_{singular}", _CHANGERS, description=f"Give a QoS policy {rules.title}")
    show_alias, update_alias, remove_alias = policies(
        alias, follows=f"policy_{singular}" if rules.alias_follows else None
    )
    kind = kind_of(rules, show)
    by_alias = msgspec.structs.replace(kind, singular=alias, plural=f"{alias}s", show=show_alias)
    facts = resource.target_facts(kind)

    def of_policy(found: QosPolicy) -> Kind[QosRule]:
        return msgspec.structs.replace(
            kind,
            sight=lambda caller: sa.and_(own_in_sight(caller, rules.table), rules.table.c.policy_id == found.id),
            place=f"qos/policies/{found.id}/{singular}s",
        )

    def target(call: Call[object, object]) -> QosRule:
        return resource.find_in_sight(call, of_policy(_policy(call)), call.path[f"{singular}_id"])

    def named(handler: Callable[[CallT], AnswerT]) -> Callable[[CallT], AnswerT]:
        handler.__name__ = handler.__name__.replace("qos_rule", singular)
        return handler

    @NETWORK.operation("GET", path, rules=(), target=resource.target(QOS_POLICIES))
    @named
    def list_qos_rules(call: Call[QosPolicy, None]) -> View:
        """List a QoS policy's rules of this type."""
        return resource.listed(call, of_policy(call.target))

    @NETWORK.operation(
        "POST",
        path,
        rules=(Rule(create),),
        target=resource.target(QOS_POLICIES),
        facts=_facts,
        body=rules.new,
        body_key=singular,
        success=201,
    )
    @named
    def create_qos_rule(call: Call[QosPolicy, Body]) -> View:
        """Give a QoS policy a rule of this type."""
        found, values = call.target, {**rules.defaults, **resource.given(call.body)}
        _refuse_second(call.tx, rules, found.id, values)
        _refuse_clash(call.tx, rules, found.id, values)
        if rules.means(values):
            qos.require_rule_kept(call.tx, found.id, rules)
        made = insert(
            call.tx, rules.record, call.cloud.clock, project_id=found.project_id, policy_id=found.id, **values
        )
        revise(call.tx, QosPolicy, found.id, call.now_us)
        return resource.shown(call, kind, made)

    def changed(call: Call[QosRule, Body], shown_as: Kind[QosRule]) -> View:
        found, given = call.target, resource.given(call.body)
        values = {**rules.values(found), **given}
        if rules.means(values) and not rules.asks(found):
            qos.require_rule_kept(call.tx, found.policy_id, rules)
        if rules.by in given:
            _refuse_second(call.tx, rules, found.policy_id, values, but=found.id)
        _refuse_clash(call.tx, rules, found.policy_id, values, but=found.id)
        change(call.tx, rules.record, found.id, call.now_us, **given)
        revise(call.tx, QosPolicy, found.policy_id, call.now_us)
        return resource.shown(call, shown_as, must_get(call.tx, rules.record, found.id))

    def ended(call: Call[QosRule, None]) -> None:
        delete(call.tx, rules.record, call.target.id)
        revise(call.tx, QosPolicy, call.target.policy_id, call.now_us)

    @NETWORK.operation("GET", rule_path, rules=(), target=target)
    @named
    def show_qos_rule(call: Call[QosRule, None]) -> View:
        """Show a rule of a QoS policy."""
        return resource.shown(call, kind, call.target)

    @NETWORK.operation(
        "PUT", rule_path, rules=(Rule(update),), target=target, facts=facts, body=rules.change, body_key=singular
    )
    @named
    def update_qos_rule(call: Call[QosRule, Body]) -> View:
        """Change a rule of a QoS policy; hosts learn it at once."""
        return changed(call, kind)

    @NETWORK.operation("DELETE", rule_path, rules=(Rule(remove),), target=target, facts=facts, success=204)
    @named
    def delete_qos_rule(call: Call[QosRule, None]) -> None:
        """Take a rule away from a QoS policy."""
        ended(call)

    @NETWORK.operation("GET", alias_path, rules=(), target=resource.target(by_alias))
    @named
    def show_alias_qos_rule(call: Call[QosRule, None]) -> View:
        """Show a rule of a QoS policy, without naming the policy."""
        return resource.shown(call, by_alias, call.target)

    @NETWORK.operation(
        "PUT",
        alias_path,
        rules=(Rule(update_alias),),
        target=resource.target(by_alias),
        facts=facts,
        body=rules.change,
        body_key=alias,
    )
    @named
    def update_alias_qos_rule(call: Call[QosRule, Body]) -> View:
        """Change a rule of a QoS policy, without naming the policy."""
        return changed(call, by_alias)

    @NETWORK.operation(
        "DELETE",
        alias_path,
        rules=(Rule(remove_alias),),
        target=resource.target(by_alias),
        facts=facts,
        success=204,
    )
    @named
    def delete_alias_qos_rule(call: Call[QosRule, None]) -> None:
        """Take a rule away from a QoS policy, without naming the policy."""
        ended(call)


for _rules in RULE_TYPES.values():
    _declare(_rules)


# -- types


def _kept(tx: Tx) -> list[RuleType]:
    """The types of rules that every host can apply."""
    found = hosts.wiring(tx)
    return [rules for rules in RULE_TYPES.values() if all(rules.feature in host.features for host in found)]


@NETWORK.operation("GET", "/qos/rule-types", rules=(Rule(SHOW_TYPE),))
def list_rule_types(call: Call[None, None]) -> View:
    """List the types of QoS rules that all hosts keep."""
    return {"rule_types": [{"type": rules.name} for rules in _kept(call.tx)]}


@NETWORK.operation("GET", "/qos/rule-types/{rule_type}", rules=(Rule(SHOW_TYPE),))
def show_rule_type(call: Call[None, None]) -> View:
    """Show what a rule of a type may say."""
    name = call.path["rule_type"]
    for rules in _kept(call.tx):
        if rules.name == name:
            driver = {"name": "cumulet", "supported_parameters": list(rules.parameters)}
            return {"rule_type": {"type": name, "drivers": [driver]}}
    raise NotFound(f"QoS rule type {name} could not be found.", reason="QosRuleTypeNotFound")
