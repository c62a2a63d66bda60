"""Which roles a user holds where: given to the user or to a group, here or to all below, and what those imply."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, and_, false, func, insert, or_, select

from cumulet.db.engine import Select, Tx
from cumulet.identity import store
from cumulet.identity.store import Project, Role

DEEPEST_TREE = 5
"""Projects above each other in one domain, the domain not counted: upstream's `max_project_tree_depth`."""

_a = store.assignments.c
_p = store.projects.c


def held_by(user_id: str) -> ColumnElement[bool]:
    """Assignments of a user, or of a group the user is in."""
    m = store.memberships.c
    return or_(_a.user_id == user_id, _a.group_id.in_(select(m.group_id).where(m.user_id == user_id)))


def above(tx: Tx, project: Project) -> list[Project]:
    """The projects above one, the nearest first."""
    found: list[Project] = []
    while project.parent_id is not None and len(found) < DEEPEST_TREE:
        parent = store.project_by_id(tx, project.parent_id)
        if parent is None:
            break
        found.append(parent)
        project = parent
    return found


def below(project_ids: Select) -> Select:
    """The ids of all projects below some."""
    tree = select(_p.id).where(_p.parent_id.in_(project_ids)).cte("below", recursive=True)
    return select(tree.union_all(select(_p.id).where(_p.parent_id == tree.c.id)).c.id)


def projects_below(tx: Tx, project_id: str) -> list[Project]:
    """All projects below one, by name."""
    ids = below(select(_p.id).where(_p.id == project_id))
    return store.many(tx, Project, select(store.projects).where(_p.id.in_(ids)).order_by(_p.name, _p.id))


def reaching(tx: Tx, scope: str, scope_id: str) -> ColumnElement[bool]:
    """Assignments that count at a place: given there, or above it to all below."""
    here = and_(_a.scope == scope, _a.scope_id == scope_id, ~_a.inherited)
    project = store.project_by_id(tx, scope_id) if scope == "project" else None
    if project is None:
        return here
    return or_(here, inherited_by(tx, project))


def inherited_by(tx: Tx, project: Project) -> ColumnElement[bool]:
    """Assignments that a project inherits: from its domain, or from projects above it."""
    parents = [parent.id for parent in above(tx, project)]
    of_domain = and_(_a.scope == "domain", _a.scope_id == project.domain_id)
    of_parents = and_(_a.scope == "project", _a.scope_id.in_(parents)) if parents else false()
    return and_(_a.inherited, or_(of_domain, of_parents))


def effective_roles(tx: Tx, user_id: str, scope: str, scope_id: str) -> list[Role]:
    """The roles a user holds there and those they imply, by name. Roles of one domain imply others but are not held."""
    held = select(_a.role_id).where(held_by(user_id), reaching(tx, scope, scope_id))
    return named(tx, {row.role_id for row in tx.all(held)})


def project_of(tx: Tx, user_id: str, project_id: str) -> Project | None:
    """The project, if the user holds a role in it: to others it is like one that never was."""
    return store.project_by_id(tx, project_id) if effective_roles(tx, user_id, "project", project_id) else None


def named(tx: Tx, role_ids: set[str]) -> list[Role]:
    """Those of these roles that are there, and those they imply, as a token has them."""
    if not role_ids:
        return []
    reached = with_implied(tx, role_ids)
    everything = store.many(tx, Role, select(store.roles).where(store.roles.c.domain_id.is_(None)))
    return sorted((role for role in everything if role.id in reached), key=lambda role: role.name)


def with_implied(tx: Tx, role_ids: Iterable[str]) -> set[str]:
    """`role_ids` and all they imply, directly or not."""
    return _reached(role_ids, ((row.prior_role_id, row.implied_role_id) for row in tx.all(select(store.implied_roles))))


def implying(tx: Tx, role_id: str) -> set[str]:
    """`role_id` and all that imply it, directly or not."""
    rows = tx.all(select(store.implied_roles))
    return _reached([role_id], ((row.implied_role_id, row.prior_role_id) for row in rows))


def _reached(role_ids: Iterable[str], leads: Iterable[tuple[str, str]]) -> set[str]:
    """`role_ids` and all that one of the pairs leads to, directly or not."""
    following: dict[str, list[str]] = {}
    for one, other in leads:
        following.setdefault(one, []).append(other)
    reached: set[str] = set()
    waiting = list(role_ids)
    while waiting:
        role_id = waiting.pop()
        if role_id not in reached:
            reached.add(role_id)
            waiting.extend(following.get(role_id, ()))
    return reached


def projects_of(user_id: str) -> ColumnElement[bool]:
    """Projects where a user holds a role."""
    mine = held_by(user_id)
    given = select(_a.scope_id).where(mine, _a.scope == "project", ~_a.inherited)
    domains = select(_a.scope_id).where(mine, _a.scope == "domain", _a.inherited)
    roots = select(_a.scope_id).where(mine, _a.scope == "project", _a.inherited)
    return or_(_p.id.in_(given), _p.domain_id.in_(domains), _p.id.in_(below(roots)))


def assign(
    tx: Tx,
    user_id: str | None,
    scope: str,
    scope_id: str,
    role_id: str,
    *,
    group_id: str | None = None,
    inherited: bool = False,
) -> None:
    """Give a user, or a group, a role; giving it twice is no error."""
    there = select(func.count()).select_from(store.assignments)
    there = there.where(
        _a.user_id == user_id if user_id is not None else _a.group_id == group_id,
        _a.scope == scope,
        _a.scope_id == scope_id,
        _a.role_id == role_id,
        _a.inherited.is_(inherited),
    )
    if not tx.scalar(there):
        values = {"user_id": user_id, "group_id": group_id, "scope": scope, "scope_id": scope_id, "role_id": role_id}
        tx.execute(insert(store.assignments).values(**values, inherited=inherited))
