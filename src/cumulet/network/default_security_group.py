"""The security group every project has: all out, in only from its own members. Made when first needed."""

from __future__ import annotations

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.network.group_records import SecurityGroup, SecurityGroupRule
from cumulet.network.store import find_by, insert

NAME = "default"
ETHERTYPES = ("IPv4", "IPv6")
"""Every new group lets its members send: one rule for each."""


def ensure(tx: Tx, clock: Clock, project_id: str) -> SecurityGroup:
    """The project's default group; made with its four rules if there is none."""
    found = find_by(tx, SecurityGroup, project_id=project_id, is_default=True)
    if found:
        return found[0]
    group = insert(
        tx,
        SecurityGroup,
        clock,
        project_id=project_id,
        name=NAME,
        description="Default security group",
        stateful=True,
        is_default=True,
    )
    for ethertype in ETHERTYPES:
        add_rule(tx, clock, group, direction="egress", ethertype=ethertype)
        add_rule(tx, clock, group, direction="ingress", ethertype=ethertype, remote_group_id=group.id)
    return group


def exists(tx: Tx, project_id: str) -> bool:
    return bool(find_by(tx, SecurityGroup, project_id=project_id, is_default=True))


def add_rule(
    tx: Tx, clock: Clock, group: SecurityGroup, *, direction: str, ethertype: str, remote_group_id: str | None = None
) -> SecurityGroupRule:
    """A rule for all protocols and ports."""
    return insert(
        tx,
        SecurityGroupRule,
        clock,
        project_id=group.project_id,
        security_group_id=group.id,
        direction=direction,
        ethertype=ethertype,
        protocol=None,
        port_range_min=None,
        port_range_max=None,
        remote_ip_prefix=None,
        remote_group_id=remote_group_id,
        remote_address_group_id=None,
    )
