"""The rules that every new security group begins with: ``/default-security-group-rules``. Administrators choose them.

Neutron's four rules stand in `FIRST`. The table holds which of them are removed, and the rules that were added.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx, metadata
from cumulet.errors import Conflict, NotFound, NotYet, OverQuota
from cumulet.network import bodies, filtering, paging, policy
from cumulet.network.bodies import either, text
from cumulet.network.resource import View
from cumulet.network.resource_columns import resource_columns
from cumulet.network.rule_meaning import RuleContent, check_rule, ethertype, meaning, protocol_name
from cumulet.network.service import NETWORK
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Convert, Unset

CREATE = rule("create_default_security_group_rule", policy.ADMIN, description="Add a rule to all new security groups")
SHOW = rule("get_default_security_group_rule", "role:reader", description="See the rules of new security groups")
DELETE = rule("delete_default_security_group_rule", policy.ADMIN, description="Leave a rule out of new groups")

PARENT = "PARENT"
"""The value of `remote_group_id` that means the new group itself."""
MOST = 50
PATH = "/default-security-group-rules/{default_security_group_rule_id}"

default_rules = sa.Table(
    "default_security_group_rules",
    metadata,
    *resource_columns(but=("name",)),
    # True: one of `FIRST` that is removed. The rest of the row has no meaning then.
    sa.Column("gone", sa.Boolean, nullable=False),
    sa.Column("direction", sa.String(8), nullable=False),
    sa.Column("ethertype", sa.String(8), nullable=False),
    sa.Column("protocol", sa.String(40)),
    sa.Column("port_range_min", sa.Integer),
    sa.Column("port_range_max", sa.Integer),
    sa.Column("remote_ip_prefix", sa.String(64)),
    sa.Column("from_members", sa.Boolean, nullable=False),
    sa.Column("used_in_default_sg", sa.Boolean, nullable=False),
    sa.Column("used_in_non_default_sg", sa.Boolean, nullable=False),
)


class DefaultRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule of new groups. `from_members`: its remote group is the group itself."""

    id: str
    direction: str
    ethertype: str
    description: str = ""
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    from_members: bool = False
    used_in_default_sg: bool = True
    used_in_non_default_sg: bool = True

    def content(self, group_id: str) -> RuleContent:
        """What it lets pass as a rule of a group."""
        return {
            "direction": self.direction,
            "ethertype": self.ethertype,
            "protocol": self.protocol,
            "port_range_min": self.port_range_min,
            "port_range_max": self.port_range_max,
            "remote_ip_prefix": self.remote_ip_prefix,
            "remote_group_id": group_id if self.from_members else None,
            "remote_address_group_id": None,
        }


def _first(number: int, direction: str, kind: str) -> DefaultRule:
    inward = direction == "ingress"
    return DefaultRule(
        id=f"00000000-0000-4000-8000-00000000000{number}",
        direction=direction,
        ethertype=kind,
        from_members=inward,
        used_in_non_default_sg=not inward,
    )


FIRST = (
    _first(1, "egress", "IPv4"),
    _first(2, "ingress", "IPv4"),
    _first(3, "egress", "IPv6"),
    _first(4, "ingress", "IPv6"),
)
_FIELDS = DefaultRule.__struct_fields__


def rules(tx: Tx) -> list[DefaultRule]:
    """The default rules, oldest first."""
    rows = tx.all(sa.select(default_rules).order_by(default_rules.c.created_at_us, default_rules.c.id))
    gone = {row.id for row in rows if row.gone}
    added = [DefaultRule(**{name: row._mapping[name] for name in _FIELDS}) for row in rows if not row.gone]
    return [*(one for one in FIRST if one.id not in gone), *added]


def of_new_group(tx: Tx, *, default: bool) -> list[DefaultRule]:
    """The rules that a new group begins with. `default`: it is the default group of a project."""
    return [one for one in rules(tx) if (one.used_in_default_sg if default else one.used_in_non_default_sg)]


def _view(one: DefaultRule) -> View:
    view: View = {name: getattr(one, name) for name in _FIELDS if name != "from_members"}
    return view | {"remote_group_id": PARENT if one.from_members else None, "remote_address_group_id": None}


_READERS: dict[str, paging.Reader] = dict.fromkeys(
    (
        "id",
        "description",
        "remote_group_id",
        "remote_address_group_id",
        "direction",
        "protocol",
        "ethertype",
        "remote_ip_prefix",
    ),
    str,
) | {
    "port_range_min": paging.number,
    "port_range_max": paging.number,
    "used_in_default_sg": filtering.truth,
    "used_in_non_default_sg": filtering.truth,
}


class NewDefaultRule(bodies.NewResource):
    direction: Literal["ingress", "egress"]
    ethertype: Annotated[str, Convert(ethertype)] | Unset = UNSET
    protocol: Annotated[str | int | Unset | None, Convert(protocol_name)] = UNSET
    port_range_min: bodies.Number | Unset | None = UNSET
    port_range_max: bodies.Number | Unset | None = UNSET
    remote_ip_prefix: bodies.SubnetRange | Unset | None = UNSET
    remote_group_id: bodies.Name | Unset | None = UNSET
    remote_address_group_id: bodies.Id | Unset | None = UNSET
    used_in_default_sg: bodies.Truth | Unset = UNSET
    used_in_non_default_sg: bodies.Truth | Unset = UNSET


@NETWORK.operation("GET", "/default-security-group-rules", rules=(Rule(SHOW),))
def list_default_security_group_rules(call: Call[None, None]) -> View:
    """List the rules that new security groups begin with."""
    views = [_view(one) for one in rules(call.tx)]
    return paging.of_few(call, "default_security_group_rules", views, _READERS, path="default-security-group-rules")


@NETWORK.operation(
    "POST",
    "/default-security-group-rules",
    rules=(Rule(CREATE),),
    body=NewDefaultRule,
    body_key="default_security_group_rule",
    success=201,
)
def create_default_security_group_rule(call: Call[None, NewDefaultRule]) -> View:
    """Add a rule to all security groups that are made from now on."""
    body, clock = call.body, call.cloud.clock
    if body.remote_address_group_id not in (UNSET, None) or body.remote_group_id not in (UNSET, None, PARENT):
        raise NotYet(f"Cumulet's default rules name no groups but {PARENT}, which is the new group itself.")
    made = DefaultRule(
        id=clock.uuid(),
        description=text(body.description),
        direction=body.direction,
        ethertype=either(body.ethertype, "IPv4"),
        protocol=either(body.protocol, None),
        port_range_min=either(body.port_range_min, None),
        port_range_max=either(body.port_range_max, None),
        remote_ip_prefix=either(body.remote_ip_prefix, None),
        from_members=body.remote_group_id == PARENT,
        used_in_default_sg=either(body.used_in_default_sg, False),
        used_in_non_default_sg=either(body.used_in_non_default_sg, True),
    )
    check_rule(made.content(PARENT))
    present = rules(call.tx)
    _refuse_twice(present, made)
    if len(present) >= MOST:
        raise OverQuota("Quota exceeded for resources: ['default_security_group_rule'].", reason="QUOTA")
    values = {name: getattr(made, name) for name in _FIELDS}
    _keep(call, gone=False, **values)
    return {"default_security_group_rule": _view(made)}


def _refuse_twice(present: list[DefaultRule], made: DefaultRule) -> None:
    for other in present:
        both = (other.used_in_default_sg and made.used_in_default_sg) or (
            other.used_in_non_default_sg and made.used_in_non_default_sg
        )
        if both and meaning(other.content(PARENT)) == meaning(made.content(PARENT)):
            raise Conflict(
                f"Default Security Group rule already exists. Rule id is {other.id}.",
                reason="DefaultSecurityGroupRuleExists",
            )


def _keep(call: Call[object, object], **values: object) -> None:
    times = {"revision": 0, "created_at_us": call.now_us, "updated_at_us": call.now_us}
    call.tx.execute(sa.insert(default_rules).values(project_id=call.caller.project_id or "", **times, **values))


def _target(call: Call[object, object]) -> DefaultRule:
    wanted = call.path["default_security_group_rule_id"]
    for one in rules(call.tx):
        if one.id == wanted:
            return one
    raise NotFound(f"Default Security Group rule {wanted} does not exist", reason="DefaultSecurityGroupRuleNotFound")


@NETWORK.operation("GET", PATH, rules=(Rule(SHOW),), target=_target)
def show_default_security_group_rule(call: Call[DefaultRule, None]) -> View:
    """Show a rule that new security groups begin with."""
    return {"default_security_group_rule": _view(call.target)}


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=_target, success=204)
def delete_default_security_group_rule(call: Call[DefaultRule, None]) -> None:
    """Leave a rule out of new security groups. Groups that exist keep it."""
    one = call.target
    if one in FIRST:
        _keep(call, gone=True, **{name: getattr(one, name) for name in _FIELDS})
        return
    call.tx.execute(sa.delete(default_rules).where(default_rules.c.id == one.id))
