"""Rules of metering labels: ``/metering/metering-label-rules``. Which packets a label counts."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Literal

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, OverQuota
from cumulet.network import bodies, filtering, hosts, policy, refusals, resource
from cumulet.network.bodies import either
from cumulet.network.metering_labels import METERING_LABELS
from cumulet.network.metering_records import MeteringLabel, MeteringRule, metering_label_rules
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import delete, find_by, insert
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

CREATE = rule("create_metering_label_rule", policy.ADMIN_OR_PROJECT_MANAGER, description="Add a rule to a label")
SHOW = rule("get_metering_label_rule", policy.ADMIN_OR_PROJECT_READER, description="See a metering label's rule")
DELETE = rule("delete_metering_label_rule", policy.ADMIN_OR_PROJECT_MANAGER, description="Remove a rule from a label")

PATH = "/metering/metering-label-rules"
MOST_OF_LABEL = 20
_ATTRIBUTES = (
    "metering_label_id",
    "direction",
    "excluded",
    "remote_ip_prefix",
    "source_ip_prefix",
    "destination_ip_prefix",
)
_COLUMNS = {name: metering_label_rules.c[name] for name in ("id", *_ATTRIBUTES)}


def _views(_tx: Tx, records: Sequence[MeteringRule]) -> list[View]:
    return [
        {"id": one.id, "project_id": one.project_id, "tenant_id": one.project_id}
        | {name: getattr(one, name) for name in _ATTRIBUTES}
        for one in records
    ]


METERING_RULES = Kind(
    record=MeteringRule,
    singular="metering_label_rule",
    plural="metering_label_rules",
    title="Metering label rule",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, metering_label_rules),
    filters=filtering.by_columns(_COLUMNS),
    sorts=_COLUMNS,
    views=_views,
    hidden={},
    place="metering/metering-label-rules",
)


class NewMeteringRule(bodies.NewOwned):
    """A rule of a label, with at least one prefix."""

    metering_label_id: bodies.Id
    direction: Literal["ingress", "egress"]
    excluded: bodies.Truth | Unset = UNSET
    remote_ip_prefix: bodies.SubnetRange | Unset | None = UNSET
    source_ip_prefix: bodies.SubnetRange | Unset | None = UNSET
    destination_ip_prefix: bodies.SubnetRange | Unset | None = UNSET


class CreateMeteringRules(Body):
    metering_label_rule: NewMeteringRule | Unset = UNSET
    metering_label_rules: list[NewMeteringRule] | Unset = UNSET


@NETWORK.operation("GET", PATH, rules=())
def list_metering_rules(call: Call[None, None]) -> View:
    """List the rules of the project's metering labels; for administrators all."""
    return resource.listed(call, METERING_RULES)


def _label(call: Call[object, object], new: NewMeteringRule) -> MeteringLabel:
    return resource.find_in_sight(call, METERING_LABELS, new.metering_label_id)


def _creation_facts(call: Call[object, object]) -> View:
    first = resource.items_of(call.body, METERING_RULES.singular, METERING_RULES.plural)[0][0]
    return {"project_id": _label(call, first).project_id}


@NETWORK.operation("POST", PATH, rules=(Rule(CREATE),), facts=_creation_facts, body=CreateMeteringRules, success=201)
def create_metering_rules(call: Call[None, CreateMeteringRules]) -> View:
    """Add a rule to a metering label, or several at once."""
    return resource.created(call, METERING_RULES, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewMeteringRule) -> MeteringRule:
    label = _label(call, new)
    resource.owner(call, new)
    call.require(CREATE, {"project_id": label.project_id})
    remote, source, destination = (
        either(prefix, None) for prefix in (new.remote_ip_prefix, new.source_ip_prefix, new.destination_ip_prefix)
    )
    if remote is not None and (source is not None or destination is not None):
        raise refusals.invalid(
            "Cannot use 'remote_ip_prefix' in conjunction with 'source_ip_prefix' or 'destination_ip_prefix'."
        )
    prefixes = [ip_network(prefix) for prefix in (remote, source, destination) if prefix is not None]
    if not prefixes:
        raise refusals.invalid(
            "You must define at least one of the following parameters 'remote_ip_prefix', or 'source_ip_prefix' or "
            "'destination_ip_prefix'."
        )
    if len({prefix.version for prefix in prefixes}) > 1:
        raise refusals.invalid("source_ip_prefix and destination_ip_prefix are of two versions of IP.")
    hosts.require(call.tx, hosts.METERING)
    rules, excluded = find_by(call.tx, MeteringRule, metering_label_id=label.id), either(new.excluded, False)
    if len(rules) >= MOST_OF_LABEL:
        raise OverQuota("Quota exceeded for resources: ['metering_label_rule'].", reason="QUOTA")
    if remote is not None:
        _refuse_overlap([one for one in rules if (one.direction, one.excluded) == (new.direction, excluded)], remote)
    return insert(
        call.tx,
        MeteringRule,
        call.cloud.clock,
        project_id=label.project_id,
        metering_label_id=label.id,
        direction=new.direction,
        excluded=excluded,
        remote_ip_prefix=remote,
        source_ip_prefix=source,
        destination_ip_prefix=destination,
    )


def _refuse_overlap(alike: Sequence[MeteringRule], remote: str) -> None:
    wanted = ip_network(remote)
    for other in alike:
        if other.remote_ip_prefix is not None and wanted.overlaps(ip_network(other.remote_ip_prefix)):
            raise Conflict(
                f"Metering label rule with remote_ip_prefix '{remote}' overlaps another.",
                reason="MeteringLabelRuleOverlaps",
            )


@NETWORK.operation("GET", PATH + "/{metering_label_rule_id}", rules=(), target=resource.target(METERING_RULES))
def show_metering_rule(call: Call[MeteringRule, None]) -> View:
    """Show a rule of a metering label."""
    return resource.shown(call, METERING_RULES, call.target)


@NETWORK.operation(
    "DELETE",
    PATH + "/{metering_label_rule_id}",
    rules=(Rule(DELETE),),
    target=resource.target(METERING_RULES),
    success=204,
)
def delete_metering_rule(call: Call[MeteringRule, None]) -> None:
    """Remove a rule from its metering label."""
    delete(call.tx, MeteringRule, call.target.id)
