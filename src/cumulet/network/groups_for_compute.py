"""The security groups that a server's new ports get, named as Nova's users name them."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.network import default_security_group, sharing
from cumulet.network.group_records import SecurityGroup, security_groups
from cumulet.network.sharing import Shareable
from cumulet.network.store import find


def ids_of(tx: Tx, project_id: str, wanted: Sequence[str]) -> list[str] | None:
    """Ids of the project's security groups, and of those shared with it, by id or name; None for the default one."""
    if list(wanted) in ([], [default_security_group.NAME]):
        return None
    own = find(tx, SecurityGroup, security_groups.c.project_id == project_id)
    shared = find(
        tx, SecurityGroup, security_groups.c.id.in_(sharing.with_project(Shareable.SECURITY_GROUP, project_id))
    )
    ids: list[str] = []
    for name in wanted:
        default = name == default_security_group.NAME
        matching = _named(own, name) or ([] if default else _named(shared, name))
        if len(matching) > 1:
            raise Conflict(f"Multiple security groups found matching '{name}'. Use an ID to be more specific.")
        if not matching and not default:
            raise BadRequest(f"Security group {name} not found for project {project_id}.")
        ids += matching
    return ids


def _named(groups: Sequence[SecurityGroup], name: str) -> list[str]:
    return [group.id for group in groups if group.id == name] or [group.id for group in groups if group.name == name]
