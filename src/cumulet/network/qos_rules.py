"""Rules of QoS policies that limit bandwidth, also by their own ids alone; and which types of rules there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, NotFound
from cumulet.network import hosts, policy, resource
from cumulet.network.bodies import either, whole_number
from cumulet.network.hosts import BANDWIDTH_LIMITS
from cumulet.network.qos_policies import PATH as POLICY
from cumulet.network.qos_policies import QOS_POLICIES
from cumulet.network.qos_records import BandwidthLimit, QosPolicy, bandwidth_limits
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import change, delete, find_by, insert, must_get, revise
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Convert, Json, Unset

_CHANGERS = "(rule:admin_only) or (role:manager and rule:ext_parent_owner)"
_NAME = "policy_bandwidth_limit_rule"
_ALIAS = "alias_bandwidth_limit_rule"
CREATE = rule(f"create_{_NAME}", _CHANGERS, description="Limit bandwidth by a QoS policy")
SHOW = rule(f"get_{_NAME}", policy.ADMIN_OR_PARENT_OWNER_READER, description="See a limit of bandwidth")
UPDATE = rule(f"update_{_NAME}", _CHANGERS, description="Change a limit of bandwidth")
DELETE = rule(f"delete_{_NAME}", _CHANGERS, description="Take away a limit of bandwidth")
SHOW_ALIAS = rule(f"get_{_ALIAS}", policy.ADMIN_OR_PARENT_OWNER_READER, description="See a limit of bandwidth")
UPDATE_ALIAS = rule(f"update_{_ALIAS}", _CHANGERS, description="Change a limit of bandwidth")
DELETE_ALIAS = rule(f"delete_{_ALIAS}", _CHANGERS, description="Take away a limit of bandwidth")
SHOW_TYPE = rule("get_rule_type", "role:reader", description="See which types of QoS rules there are")

MOST_KBPS = 2**31 - 1
DIRECTIONS = ("egress", "ingress")
TYPE = "bandwidth_limit"
PATH = f"{POLICY}/bandwidth_limit_rules"
ALIAS_PATH = "/qos/alias_bandwidth_limit_rules/{alias_bandwidth_limit_rule_id}"
_T = bandwidth_limits.c


def _views(_tx: Tx, records: Sequence[BandwidthLimit]) -> list[View]:
    return [
        {
            "id": record.id,
            "direction": record.direction,
            "max_kbps": record.max_kbps,
            "max_burst_kbps": record.max_burst_kbps,
        }
        for record in records
    ]


def _parents(_tx: Tx, records: Sequence[BandwidthLimit]) -> list[View]:
    return [{"ext_parent:project_id": record.project_id} for record in records]


_COLUMNS = ("direction", "max_kbps", "max_burst_kbps")
_SORTS = {name: _T[name] for name in ("id", *_COLUMNS)}
_FILTERS = resource.filters_on(bandwidth_limits, *_COLUMNS)
LIMITS = Kind(
    record=BandwidthLimit,
    singular="bandwidth_limit_rule",
    plural="bandwidth_limit_rules",
    title="QoS rule",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, bandwidth_limits),
    filters={name: _FILTERS[name] for name in _SORTS},
    sorts=_SORTS,
    views=_views,
    hidden={},
    parents=_parents,
)
ALIASES = msgspec.structs.replace(LIMITS, singular=_ALIAS, plural=f"{_ALIAS}s", show=SHOW_ALIAS)


def _of(found: QosPolicy) -> Kind[BandwidthLimit]:
    """Those of one policy."""
    return msgspec.structs.replace(
        LIMITS,
        sight=lambda caller: sa.and_(own_in_sight(caller, bandwidth_limits), _T.policy_id == found.id),
        place=f"qos/policies/{found.id}/bandwidth_limit_rules",
    )


def _policy(call: Call[object, object]) -> QosPolicy:
    return resource.find_in_sight(call, QOS_POLICIES, call.path["policy_id"])


def _target(call: Call[object, object]) -> BandwidthLimit:
    return resource.find_in_sight(call, _of(_policy(call)), call.path["bandwidth_limit_rule_id"])


def _facts(call: Call[QosPolicy, object]) -> View:
    return {"ext_parent:project_id": call.target.project_id}


def _kilobits(value: object) -> int:
    number = whole_number(value)
    if not 0 <= number <= MOST_KBPS:
        raise ValueError(f"'{number}' is not in range 0 through {MOST_KBPS}")
    return number


Kilobits = Annotated[int, Json({"type": ["integer", "string"], "maxLength": 19}), Convert(_kilobits)]


class NewLimit(Body):
    max_kbps: Kilobits
    max_burst_kbps: Kilobits | Unset = UNSET
    direction: Literal["egress", "ingress"] | Unset = UNSET


class ChangeLimit(Body):
    max_kbps: Kilobits | Unset = UNSET
    max_burst_kbps: Kilobits | Unset = UNSET
    direction: Literal["egress", "ingress"] | Unset = UNSET


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(QOS_POLICIES))
def list_bandwidth_limit_rules(call: Call[QosPolicy, None]) -> View:
    """List what of a policy limits bandwidth."""
    return resource.listed(call, _of(call.target))


@NETWORK.operation(
    "POST",
    PATH,
    rules=(Rule(CREATE),),
    target=resource.target(QOS_POLICIES),
    facts=_facts,
    body=NewLimit,
    body_key="bandwidth_limit_rule",
    success=201,
)
def create_bandwidth_limit_rule(call: Call[QosPolicy, NewLimit]) -> View:
    """Limit the bandwidth of all that has a policy, in one direction as guests see it."""
    found, body = call.target, call.body
    direction = either(body.direction, "egress")
    _refuse_second(call.tx, found.id, direction)
    hosts.require(call.tx, BANDWIDTH_LIMITS)
    made = insert(
        call.tx,
        BandwidthLimit,
        call.cloud.clock,
        project_id=found.project_id,
        policy_id=found.id,
        direction=direction,
        max_kbps=body.max_kbps,
        max_burst_kbps=either(body.max_burst_kbps, 0),
    )
    revise(call.tx, QosPolicy, found.id, call.now_us)
    return resource.shown(call, LIMITS, made)


def _refuse_second(tx: Tx, policy_id: str, direction: str, but: str = "") -> None:
    for other in find_by(tx, BandwidthLimit, policy_id=policy_id, direction=direction):
        if other.id != but:
            raise Conflict(
                f"Rule {TYPE} conflicts with rule {other.id} which already exists in QoS Policy {policy_id}.",
                reason="QoSRulesConflict",
            )


@NETWORK.operation("GET", f"{PATH}/{{bandwidth_limit_rule_id}}", rules=(), target=_target)
def show_bandwidth_limit_rule(call: Call[BandwidthLimit, None]) -> View:
    """Show a limit of bandwidth."""
    return resource.shown(call, LIMITS, call.target)


@NETWORK.operation(
    "PUT",
    f"{PATH}/{{bandwidth_limit_rule_id}}",
    rules=(Rule(UPDATE),),
    target=_target,
    facts=resource.target_facts(LIMITS),
    body=ChangeLimit,
    body_key="bandwidth_limit_rule",
)
def update_bandwidth_limit_rule(call: Call[BandwidthLimit, ChangeLimit]) -> View:
    """Change a limit of bandwidth; hosts learn it at once."""
    return _change(call, LIMITS)


def _change(call: Call[BandwidthLimit, ChangeLimit], kind: Kind[BandwidthLimit]) -> View:
    found, values = call.target, resource.given(call.body)
    if found.max_kbps == 0 and either(call.body.max_kbps, 0):
        hosts.require(call.tx, BANDWIDTH_LIMITS)
    if isinstance(call.body.direction, str):
        _refuse_second(call.tx, found.policy_id, call.body.direction, but=found.id)
    change(call.tx, BandwidthLimit, found.id, call.now_us, **values)
    revise(call.tx, QosPolicy, found.policy_id, call.now_us)
    return resource.shown(call, kind, must_get(call.tx, BandwidthLimit, found.id))


@NETWORK.operation(
    "DELETE",
    f"{PATH}/{{bandwidth_limit_rule_id}}",
    rules=(Rule(DELETE),),
    target=_target,
    facts=resource.target_facts(LIMITS),
    success=204,
)
def delete_bandwidth_limit_rule(call: Call[BandwidthLimit, None]) -> None:
    """Take a limit of bandwidth away."""
    _end(call)


def _end(call: Call[BandwidthLimit, None]) -> None:
    delete(call.tx, BandwidthLimit, call.target.id)
    revise(call.tx, QosPolicy, call.target.policy_id, call.now_us)


# -- by their own ids alone


@NETWORK.operation("GET", ALIAS_PATH, rules=(), target=resource.target(ALIASES))
def show_alias_bandwidth_limit_rule(call: Call[BandwidthLimit, None]) -> View:
    """Show a limit of bandwidth, without naming its policy."""
    return resource.shown(call, ALIASES, call.target)


@NETWORK.operation(
    "PUT",
    ALIAS_PATH,
    rules=(Rule(UPDATE_ALIAS),),
    target=resource.target(ALIASES),
    facts=resource.target_facts(LIMITS),
    body=ChangeLimit,
    body_key=_ALIAS,
)
def update_alias_bandwidth_limit_rule(call: Call[BandwidthLimit, ChangeLimit]) -> View:
    """Change a limit of bandwidth, without naming its policy."""
    return _change(call, ALIASES)


@NETWORK.operation(
    "DELETE",
    ALIAS_PATH,
    rules=(Rule(DELETE_ALIAS),),
    target=resource.target(ALIASES),
    facts=resource.target_facts(LIMITS),
    success=204,
)
def delete_alias_bandwidth_limit_rule(call: Call[BandwidthLimit, None]) -> None:
    """Take a limit of bandwidth away, without naming its policy."""
    _end(call)


# -- types


def _types(tx: Tx) -> list[str]:
    """None, where a host could not keep it."""
    kept = all(BANDWIDTH_LIMITS in host.features for host in hosts.wiring(tx))
    return [TYPE] if kept else []


@NETWORK.operation("GET", "/qos/rule-types", rules=(Rule(SHOW_TYPE),))
def list_rule_types(call: Call[None, None]) -> View:
    """List the types of QoS rules that all hosts keep."""
    return {"rule_types": [{"type": name} for name in _types(call.tx)]}


@NETWORK.operation("GET", "/qos/rule-types/{rule_type}", rules=(Rule(SHOW_TYPE),))
def show_rule_type(call: Call[None, None]) -> View:
    """Show what a rule of a type may say."""
    name = call.path["rule_type"]
    if name not in _types(call.tx):
        raise NotFound(f"QoS rule type {name} could not be found.", reason="QosRuleTypeNotFound")
    numbers = [
        {"parameter_name": parameter, "parameter_type": "range", "parameter_values": {"start": 0, "end": MOST_KBPS}}
        for parameter in ("max_kbps", "max_burst_kbps")
    ]
    direction = {"parameter_name": "direction", "parameter_type": "choices", "parameter_values": list(DIRECTIONS)}
    driver = {"name": "cumulet", "supported_parameters": [*numbers, direction]}
    return {"rule_type": {"type": name, "drivers": [driver]}}
