"""The security groups of a server's ports, found by the names or ids that Nova's users give."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict
from cumulet.network import default_security_group, sharing
from cumulet.network.group_records import SecurityGroup, security_groups
from cumulet.network.sharing import Shareable
from cumulet.network.store import find

_T = security_groups.c


def ids_of(tx: Tx, project_id: str, wanted: Sequence[str]) -> list[str] | None:
    """Ids of the groups of a server's new ports; None for the default group."""
    if list(wanted) in ([], [default_security_group.NAME]):
        return None
    ids: list[str] = []
    for name in wanted:
        group = named(tx, project_id, name)
        if group is not None:
            ids.append(group.id)
        elif name != default_security_group.NAME:
            raise BadRequest(f"Security group {name} not found for project {project_id}.")
    return ids


def named(tx: Tx, project_id: str, name: str) -> SecurityGroup | None:
    """A group of the project, else one that is shared with it, by id or name. 409 if several have the name."""
    matching = _matching(tx, _T.project_id == project_id, name)
    if not matching and name != default_security_group.NAME:
        matching = _matching(tx, _T.id.in_(sharing.with_project(Shareable.SECURITY_GROUP, project_id)), name)
    if len(matching) > 1:
        raise Conflict(f"Multiple security groups found matching '{name}'. Use an ID to be more specific.")
    return matching[0] if matching else None


def _matching(tx: Tx, where: sa.ColumnElement[bool], name: str) -> list[SecurityGroup]:
    found = find(tx, SecurityGroup, where, sa.or_(_T.id == name, _T.name == name))
    return [group for group in found if group.id == name] or found
