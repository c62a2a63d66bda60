"""The default security group of each project, with the rules of `default_rules`. It is made when first needed."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.network import default_rules
from cumulet.network.default_rules import DefaultRule
from cumulet.network.group_records import SecurityGroup, SecurityGroupRule
from cumulet.network.store import find_by, insert

NAME = "default"


def ensure(tx: Tx, clock: Clock, project_id: str) -> SecurityGroup:
    """The project's default group; it is made if there is none."""
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
    begin_with(tx, clock, group, default_rules.of_new_group(tx, default=True))
    return group


def exists(tx: Tx, project_id: str) -> bool:
    return bool(find_by(tx, SecurityGroup, project_id=project_id, is_default=True))


def begin_with(tx: Tx, clock: Clock, group: SecurityGroup, rules: Iterable[DefaultRule]) -> None:
    """Give a new group its first rules."""
    for rule in rules:
        insert(
            tx,
            SecurityGroupRule,
            clock,
            project_id=group.project_id,
            description=rule.description,
            security_group_id=group.id,
            **rule.content(group.id),
        )
