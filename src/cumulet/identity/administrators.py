"""Only administrators may change a user who holds the role `admin` anywhere.

Upstream's rules let the manager of a domain change every user in it. If an administrator's account is in that domain,
the manager could set a new password for it and so become an administrator of everything. The same is true of a group
that holds `admin` somewhere, because its members are administrators, and of a user who has `admin` by a trust.

`reader` on the system and `service` anywhere count as `admin` here. The first reads the EC2 secrets of every user. The
second gets a token for any user with such a secret.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, select

from cumulet.db.engine import Tx
from cumulet.identity import holding, store
from cumulet.identity.delegations import trusts
from cumulet.web.operation import Call, Refused

_REACHING = ("admin", "service")
"""Roles that reach beyond the place where they are held."""
_REACHING_FROM_SYSTEM = ("reader",)
"""Roles that reach beyond it where they are held on the system. `manager` and `member` imply `reader`."""


def is_one(tx: Tx, user_id: str) -> bool:
    """Whether the user holds such a role anywhere: directly, by a group or by a trust."""
    trusted = tx.all(select(trusts.c.role_ids).where(trusts.c.trustee_user_id == user_id))
    roles = {role_id for row in trusted for role_id in row.role_ids}
    return _reach(tx, holding.held_by(user_id)) or _has(tx, roles, _REACHING)


def group_makes(tx: Tx, group_id: str) -> bool:
    """Whether the group's members are administrators somewhere."""
    return _reach(tx, store.assignments.c.group_id == group_id)


def works_in(tx: Tx, project_id: str) -> bool:
    """Whether somebody holds such a role on this project or one below it, which would be gone with the project."""
    a = store.assignments.c
    here = [project_id, *(project.id for project in holding.projects_below(tx, project_id))]
    return _reach(tx, (a.scope == "project") & a.scope_id.in_(here))


def _reach(tx: Tx, which: ColumnElement[bool]) -> bool:
    held = tx.all(select(store.assignments.c.role_id, store.assignments.c.scope).where(which))
    of_system = {row.role_id for row in held if row.scope == "system"}
    return _has(tx, {row.role_id for row in held}, _REACHING) or _has(tx, of_system, _REACHING_FROM_SYSTEM)


def _has(tx: Tx, role_ids: set[str], names: tuple[str, ...]) -> bool:
    return any(role.name in names for role in holding.named(tx, role_ids))


def refuse_unless_administrator(call: Call[object, object], rule: str, concerns_one: bool) -> None:
    """403 with the words of `rule`, if a change concerns an administrator and the caller is not one."""
    if concerns_one and not call.caller.is_admin:
        raise Refused(rule)
