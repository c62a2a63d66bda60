"""Security groups and their rules under Compute's own paths (up to 2.35): Network's, in the shape Nova gave them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Annotated
from uuid import UUID

from cumulet.compute.links import page
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.server_security_groups import group_view, rule_view
from cumulet.compute.service import COMPUTE
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, NotFound, OverQuota
from cumulet.network import resource
from cumulet.network import security_group_rules as rules
from cumulet.network import security_groups as network
from cumulet.network.group_records import SecurityGroup, SecurityGroupRule
from cumulet.network.group_records import security_groups as rows
from cumulet.network.rule_meaning import protocol_name
from cumulet.network.store import load, select
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json

LAST = "2.35"
NAME = "os_compute_api:os-security-groups:"
LIST = rule(f"{NAME}get", READER)
SHOW = rule(f"{NAME}show", READER)
CREATE = rule(f"{NAME}create", MEMBER)
UPDATE = rule(f"{NAME}update", MEMBER)
DELETE = rule(f"{NAME}delete", MEMBER)
CREATE_RULE = rule(f"{NAME}rule:create", MEMBER)
DELETE_RULE = rule(f"{NAME}rule:delete", MEMBER)

GROUP = "/os-security-groups/{security_group_id}"
PORTS = (1, 65_535)
_Text = Annotated[str, Json({"minLength": 0, "maxLength": 255})]
_Id = Annotated[str, Json({"format": "uuid"})]


class GroupBody(Body, extra="allow"):
    name: _Text
    description: _Text


class RuleBody(Body, extra="allow"):
    parent_group_id: _Id
    group_id: _Id | None = None
    to_port: object = None
    from_port: object = None
    ip_protocol: object = None
    cidr: object = None


@contextmanager
def _as_nova_says() -> Iterator[None]:
    """Network's refusals with the statuses that Nova gives them here."""
    try:
        yield
    except OverQuota as error:
        raise Forbidden(error.public) from None
    except Conflict as error:
        raise BadRequest(error.public) from None


def _group(call: Call[object, object]) -> SecurityGroup:
    return resource.find_in_sight(call, network.GROUPS, _checked(call.path["security_group_id"]))


def _rule(call: Call[object, object]) -> SecurityGroupRule:
    return resource.find_in_sight(call, rules.RULES, _checked(call.path["security_group_rule_id"]))


def _checked(identifier: str) -> str:
    try:
        return str(UUID(identifier))
    except ValueError:
        raise BadRequest("Security group id should be uuid") from None


@COMPUTE.operation("GET", "/os-security-groups", rules=(Rule(LIST),), until=LAST)
async def list_security_groups(call: Call[None, None]) -> dict[str, object]:
    """List the project's security groups; for administrators who ask with `all_tenants` everybody's."""

    def listed(tx: Tx) -> dict[str, object]:
        call.tx = tx
        return _groups(call)

    await network.ensure_default(call)
    return await call.cloud.db.read_async(listed)


def _groups(call: Call[None, None]) -> dict[str, object]:
    values = {name: _number(name, call.query.get(name) or "0") for name in ("limit", "offset")}
    everybodys = call.caller.is_admin and call.query.get("all_tenants") is not None
    wanted = select(SecurityGroup) if everybodys else select(SecurityGroup, rows.c.project_id == call.caller.project_id)
    largest = page(call, since="2.36").limit
    wanted = wanted.order_by(rows.c.project_id, rows.c.name, rows.c.id)
    wanted = wanted.limit(min(values["limit"] or largest, largest)).offset(values["offset"])
    return {"security_groups": [group_view(call, group) for group in load(call.tx, SecurityGroup, wanted)]}


def _number(name: str, given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise BadRequest(f"Invalid input for query parameters {name}. Value: {given[:40]}. It must be an integer >= 0.")
    return int(given)


@COMPUTE.operation("GET", GROUP, rules=(Rule(SHOW),), target=_group, until=LAST)
def show_security_group(call: Call[SecurityGroup, None]) -> dict[str, object]:
    """Show a security group with its rules for what comes in."""
    return {"security_group": group_view(call, call.target)}


@COMPUTE.operation(
    "POST", "/os-security-groups", rules=(Rule(CREATE),), body=GroupBody, body_key="security_group", until=LAST
)
def create_security_group(call: Call[None, GroupBody]) -> dict[str, object]:
    """Create a security group."""
    with _as_nova_says():
        made = network.create(call, network.NewSecurityGroup(name=call.body.name, description=call.body.description))
    return {"security_group": group_view(call, made)}


@COMPUTE.operation(
    "PUT", GROUP, rules=(Rule(UPDATE),), target=_group, body=GroupBody, body_key="security_group", until=LAST
)
def update_security_group(call: Call[SecurityGroup, GroupBody]) -> dict[str, object]:
    """Change a security group's name and description."""
    call.require(network.UPDATE, resource.facts_of(network.GROUPS, call, call.target))
    wanted = network.UpdateSecurityGroup(name=call.body.name, description=call.body.description)
    with _as_nova_says():
        changed = network.update(call, call.target, wanted)
    return {"security_group": group_view(call, changed)}


@COMPUTE.operation("DELETE", GROUP, rules=(Rule(DELETE),), target=_group, success=202, until=LAST)
def delete_security_group(call: Call[SecurityGroup, None]) -> None:
    """Delete a security group that no port is a member of."""
    call.require(network.DELETE, resource.facts_of(network.GROUPS, call, call.target))
    with _as_nova_says():
        network.delete_security_group(call)


@COMPUTE.operation(
    "POST",
    "/os-security-group-rules",
    rules=(Rule(CREATE_RULE),),
    body=RuleBody,
    body_key="security_group_rule",
    until=LAST,
)
def create_security_group_rule(call: Call[None, RuleBody]) -> dict[str, object]:
    """Let something in: from a network (`cidr`), or from a group's members (`group_id`)."""
    body = call.body
    try:
        group = resource.find_in_sight(call, network.GROUPS, body.parent_group_id)
        if body.group_id is not None:
            resource.find_in_sight(call, network.GROUPS, body.group_id)
    except NotFound as error:
        raise NotFound(error.public) from None
    with _as_nova_says():
        made = rules.create_rule(call, _wanted(group, body))
    return {"security_group_rule": rule_view(call, made)}


def _wanted(group: SecurityGroup, body: RuleBody) -> rules.NewRule:
    """The rule in Network's words; BadRequest in Nova's."""
    protocol = str(body.ip_protocol) if body.ip_protocol else None
    cidr = None if body.group_id is not None else _cidr(body.cidr)
    low, high = body.from_port, body.to_port
    if body.group_id is not None and protocol is not None and low is None and high is None:
        low, high = (
            (-1, -1) if protocol.upper() == "ICMP" else PORTS if protocol.upper() in ("TCP", "UDP") else (None, None)
        )
    if protocol is None or low is None or high is None:
        if cidr is not None:
            raise BadRequest("Not enough parameters to build a valid rule.")
        protocol = low = high = None
    else:
        low, high = _ports(protocol, low, high)
    return rules.NewRule(
        security_group_id=group.id,
        direction="ingress",
        ethertype="IPv6" if cidr is not None and ip_network(cidr, strict=False).version == 6 else "IPv4",
        protocol=protocol_name(protocol) if protocol is not None else UNSET,
        port_range_min=UNSET if low in (None, -1) else low,
        port_range_max=UNSET if high in (None, -1) else high,
        remote_ip_prefix=UNSET if cidr is None else cidr,
        remote_group_id=UNSET if body.group_id is None else body.group_id,
    )


def _cidr(given: object) -> str:
    if not given:
        return "0.0.0.0/0"
    try:
        if not isinstance(given, str) or "/" not in given:
            raise ValueError
        found = ip_network(given, strict=False)
    except ValueError:
        raise BadRequest(f"{str(given)[:60]} is not a valid IP network.") from None
    if found.prefixlen == 0 and str(found.network_address) != given.partition("/")[0]:
        raise BadRequest(f"Bad prefix for network in cidr {given}")
    return given


def _integer(given: object) -> int:
    if not isinstance(given, int | float | str):
        raise TypeError
    return int(given)


def _ports(protocol: str, low: object, high: object) -> tuple[int, int]:
    name = protocol.upper()
    try:
        first, last = _integer(low), _integer(high)
    except (TypeError, ValueError, OverflowError):
        words = (
            "Type and Code must be integers for ICMP protocol type"
            if name == "ICMP"
            else "To and From ports must be integers"
        )
        raise BadRequest(f"Invalid input received: {words}") from None
    wrong = f"Invalid port range {first}:{last}."
    if name not in ("TCP", "UDP", "ICMP"):
        raise BadRequest(f"Invalid IP protocol {protocol[:40]}.")
    if name == "ICMP":
        if not (-1 <= first <= 255 and -1 <= last <= 255):
            raise BadRequest(f"{wrong} For ICMP, the type:code must be valid")
    elif first > last:
        raise BadRequest(f"{wrong} Former value cannot be greater than the later")
    elif first < PORTS[0] or last > PORTS[1]:
        raise BadRequest(f"{wrong} Valid {name} ports should be between 1-65535")
    return first, last


@COMPUTE.operation(
    "DELETE",
    "/os-security-group-rules/{security_group_rule_id}",
    rules=(Rule(DELETE_RULE),),
    target=_rule,
    success=202,
    until=LAST,
)
def delete_security_group_rule(call: Call[SecurityGroupRule, None]) -> None:
    """Remove a rule."""
    call.require(rules.DELETE, resource.facts_of(rules.RULES, call, call.target))
    rules.delete_security_group_rule(call)
