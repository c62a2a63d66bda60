"""A server's security groups: those of its ports, shown and changed for all ports at once."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.errors import BadRequest, NotFound
from cumulet.network import for_compute as network
from cumulet.network import groups_for_compute, wiring_bounds
from cumulet.network.group_records import SecurityGroup, SecurityGroupRule, port_security_groups
from cumulet.network.group_records import security_group_rules as group_rules
from cumulet.network.group_records import security_groups as groups
from cumulet.network.port_life import join_groups
from cumulet.network.store import find, ports
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

LIST = rule("os_compute_api:os-security-groups:list", READER)
ADD = rule("os_compute_api:os-security-groups:add", MEMBER)
REMOVE = rule("os_compute_api:os-security-groups:remove", MEMBER)


class GroupName(Body, extra="allow"):
    name: Annotated[str, Json({"minLength": 1})]


@COMPUTE.operation(
    "GET", "/servers/{server_id}/os-security-groups", rules=(Rule(LIST),), target=server_in_sight, query=ShowQuery
)
def list_server_security_groups(call: Call[Server, None]) -> dict[str, object]:
    """List the security groups of a server's ports."""
    held = (
        sa.select(port_security_groups.c.security_group_id)
        .join(ports, ports.c.id == port_security_groups.c.port_id)
        .where(ports.c.server_id == call.target.id)
    )
    found = sorted(find(call.tx, SecurityGroup, groups.c.id.in_(held)), key=lambda g: (g.project_id, g.name))
    return {"security_groups": [group_view(call, group) for group in found]}


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="addSecurityGroup",
    rules=(Rule(ADD),),
    target=server_in_sight,
    body=GroupName,
    success=202,
)
def add_security_group(call: Call[Server, GroupName]) -> None:
    """Add a security group to all ports of a server."""
    group = _named(call)
    for port_id, held in _ports(call).items():
        if group.id not in held:
            before = wiring_bounds.of_port(call.tx, port_id)
            join_groups(call.tx, port_id, [*held, group.id])
            wiring_bounds.check(call.tx, port_id, before=before)


@COMPUTE.operation(
    "POST",
    "/servers/{server_id}/action",
    action="removeSecurityGroup",
    rules=(Rule(REMOVE),),
    target=server_in_sight,
    body=GroupName,
    success=202,
)
def remove_security_group(call: Call[Server, GroupName]) -> None:
    """Remove a security group from all ports of a server."""
    group = _named(call)
    having = {port_id: held for port_id, held in _ports(call).items() if group.id in held}
    if not having:
        raise NotFound(f"Security group {call.body.name} is not associated with the instance {call.target.id}")
    for port_id, held in having.items():
        join_groups(call.tx, port_id, [other for other in held if other != group.id])


def _named(call: Call[Server, GroupName]) -> SecurityGroup:
    """A group of the server's project, or one that is shared with it, by id or name."""
    name = call.body.name
    if not name.strip():
        raise BadRequest("Security group name cannot be empty")
    found = groups_for_compute.named(call.tx, call.target.project_id, name)
    if found is None:
        raise NotFound(f"Security group {name} not found for project {call.target.project_id}.")
    return found


def _ports(call: Call[Server, GroupName]) -> dict[str, list[str]]:
    """The ports of the server, with their groups' ids; 404 where it has none."""
    views = network.ports_of(call.tx, [call.target.id]).get(call.target.id, [])
    if not views:
        raise NotFound(f"Instance {call.target.id} has no ports to apply security groups to.")
    held: dict[str, list[str]] = {view.id: [] for view in views}
    for row in call.tx.all(sa.select(port_security_groups).where(port_security_groups.c.port_id.in_(list(held)))):
        held[row.port_id].append(row.security_group_id)
    return held


def group_view(call: Call[object, object], group: SecurityGroup) -> dict[str, object]:
    rules = find(call.tx, SecurityGroupRule, group_rules.c.security_group_id == group.id)
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "tenant_id": group.project_id,
        "rules": [rule_view(call, r) for r in rules if r.direction == "ingress"],
    }


def rule_view(call: Call[object, object], r: SecurityGroupRule) -> dict[str, object]:
    """Nova's old shape of a rule. It knows no IPv6 wildcard: what is open to all is open to 0.0.0.0/0."""
    other: dict[str, str] = {}
    if r.remote_group_id is not None:
        found = find(call.tx, SecurityGroup, groups.c.id == r.remote_group_id)
        other = {"name": found[0].name, "tenant_id": found[0].project_id} if found else {}
    address = {} if r.remote_group_id is not None else {"cidr": r.remote_ip_prefix or "0.0.0.0/0"}
    low, high = r.port_range_min, r.port_range_max
    if r.protocol is not None and low is None and high is None:
        low, high = (1, 65_535) if r.protocol.upper() in ("TCP", "UDP") else (-1, -1)
    return {
        "id": r.id,
        "parent_group_id": r.security_group_id,
        "ip_protocol": r.protocol,
        "from_port": low,
        "to_port": high,
        "group": other,
        "ip_range": address,
    }
