"""Who holds the role `admin` anywhere is out of reach for all who are no administrators themselves.

Upstream's rules let the manager of a domain change every user in it. Where an administrator's account is in that
domain, a new password for it would make the manager an administrator of everything.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from cumulet.db.engine import Tx
from cumulet.identity import store
from cumulet.web.operation import Call, Refused

_ADMIN = "admin"


def is_one(tx: Tx, user_id: str) -> bool:
    """Whether the user holds `admin` on any project, on any domain or on the system, given or implied."""
    a = store.assignments.c
    return _reach_admin(tx, select(a.role_id).where(a.user_id == user_id))


def works_in(tx: Tx, project_id: str) -> bool:
    """Whether somebody holds `admin` on this project, and would no longer if it were gone."""
    a = store.assignments.c
    return _reach_admin(tx, select(a.role_id).where(a.scope == "project", a.scope_id == project_id))


def _reach_admin(tx: Tx, held: Select[Any]) -> bool:
    admin = store.role_by_name(tx, _ADMIN)
    return admin is not None and admin.id in store.with_implied(tx, {row.role_id for row in tx.all(held)})


def refuse_unless_administrator(call: Call[Any, Any], rule: str, concerns_one: bool) -> None:
    """403, worded as that of `rule`, where a change concerns an administrator and the caller is none."""
    if concerns_one and not call.caller.is_admin:
        raise Refused(rule)
