"""/groups: users who are given roles together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, NotFound
from cumulet.identity import administrators, store
from cumulet.identity.administrators import refuse_unless_administrator
from cumulet.identity.api import ADMIN, ANYWHERE, IDENTITY, SYSTEM_READER, collection, known, member, new_id
from cumulet.identity.domain_configuration import page_of_domain
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import AskedId, AskedName, Compared, Flag, On, filtered, page
from cumulet.identity.projects import Id, domain_of_new
from cumulet.identity.service import Identity
from cumulet.identity.store import Group, User
from cumulet.identity.users import Name, user_facts, user_in_path, user_view
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Empty, Query, Unset

_SEE = f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.group.domain_id)s)"
_MANAGE = f"({ADMIN}) or (role:manager and domain_id:%(target.group.domain_id)s)"
_SAME_DOMAIN = "domain_id:%(target.group.domain_id)s and domain_id:%(target.user.domain_id)s"

GET = rule("identity:get_group", _SEE, scope=ANYWHERE)
LIST = rule("identity:list_groups", _SEE, scope=ANYWHERE)
LIST_OF_USER = rule(
    "identity:list_groups_for_user",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s) or user_id:%(user_id)s",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_group", _MANAGE, scope=ANYWHERE)
UPDATE = rule("identity:update_group", _MANAGE, scope=ANYWHERE)
DELETE = rule("identity:delete_group", _MANAGE, scope=ANYWHERE)
LIST_USERS = rule("identity:list_users_in_group", _SEE, scope=ANYWHERE)
CHECK_USER = rule(
    "identity:check_user_in_group",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and {_SAME_DOMAIN})",
    scope=ANYWHERE,
)
ADD_USER = rule("identity:add_user_to_group", f"({ADMIN}) or (role:manager and {_SAME_DOMAIN})", scope=ANYWHERE)
REMOVE_USER = rule("identity:remove_user_from_group", f"({ADMIN}) or (role:manager and {_SAME_DOMAIN})", scope=ANYWHERE)

MOST_GROUPS_OF_USER = 100
"""Each is looked at whenever a token of the user's is examined."""


class NewGroup(Body, extra="allow"):
    name: Name
    description: str | None = None
    domain_id: Id = None


class GroupChanges(Body, extra="allow", min_properties=1):
    name: Name | Unset = UNSET
    description: str | Unset | None = UNSET
    domain_id: Id | Unset = UNSET


def group_view(call: Call[object, object], group: Group) -> dict[str, object]:
    return {
        **group.extra,
        "id": group.id,
        "name": group.name,
        "domain_id": group.domain_id,
        "description": group.description or "",
        "links": member(call, "groups", group.id),
    }


def group_in_path(call: Call[object, object]) -> Group | None:
    return store.group_by_id(call.tx, call.path["group_id"])


def known_group_in_path(call: Call[object, object]) -> Group:
    """The group in the path, to delete it: as upstream, 404 comes before the rules."""
    return known(group_in_path(call), "group", call.path["group_id"])


def group_facts(call: Call[Group | None, object]) -> Mapping[str, object]:
    group = call.target
    return {"target.group.id": group.id, "target.group.domain_id": group.domain_id} if group else {}


def new_group_facts(call: Call[None, NewGroup]) -> Mapping[str, object]:
    return {"target.group.domain_id": call.body.domain_id} if call.body.domain_id else {}


def own_domain_facts(call: Call[object, object]) -> Mapping[str, object]:
    """For lists: with a token for a domain, the rules look at that domain, and nothing else is shown."""
    return {"target.group.domain_id": call.caller.domain_id} if call.caller.domain_id else {}


class ListGroups(Query):
    domain_id: Annotated[AskedId | Unset, On(store.groups.c.domain_id)] = UNSET
    name: Annotated[AskedName | Unset, On(store.groups.c.name)] = UNSET


@IDENTITY.operation("GET", "/groups", rules=(Rule(LIST),), facts=own_domain_facts, query=ListGroups)
def list_groups(call: Call[None, None]) -> dict[str, object]:
    """List groups."""
    rows, following = page_of_domain(call, store.groups)
    views = (group_view(call, Group(**row._mapping)) for row in rows)
    return collection(call, "groups", "groups", views, next_marker=following)


@IDENTITY.operation("GET", "/groups/{group_id}", rules=(Rule(GET),), target=group_in_path, facts=group_facts)
def show_group(call: Call[Group | None, None]) -> dict[str, object]:
    """Show a group."""
    return {"group": group_view(call, known(call.target, "group", call.path["group_id"]))}


@IDENTITY.operation(
    "POST", "/groups", rules=(Rule(CREATE),), facts=new_group_facts, body=NewGroup, body_key="group", success=201
)
def create_group(call: Call[None, NewGroup]) -> dict[str, object]:
    """Create a group."""
    body = call.body
    domain_id = domain_of_new(call.tx, call.caller, body.domain_id)
    _refuse_taken_name(call.tx, domain_id, body.name)
    group = Group(
        id=new_id(call.cloud.clock),
        domain_id=domain_id,
        name=body.name,
        description=body.description,
        extra=given_extra(body),
    )
    call.tx.execute(insert(store.groups).values(**asdict(group)))
    return {"group": group_view(call, group)}


def _refuse_taken_name(tx: Tx, domain_id: str, name: str) -> None:
    if store.group_by_name(tx, domain_id, name) is not None:
        raise Conflict(f"Conflict occurred attempting to store group - Duplicate entry found with name {name}.")


@IDENTITY.operation(
    "PATCH",
    "/groups/{group_id}",
    rules=(Rule(UPDATE),),
    target=group_in_path,
    facts=group_facts,
    body=GroupChanges,
    body_key="group",
)
def update_group(call: Call[Group | None, GroupChanges]) -> dict[str, object]:
    """Change a group."""
    group, body = known(call.target, "group", call.path["group_id"]), call.body
    refuse_unless_administrator(call, UPDATE, administrators.group_makes(call.tx, group.id))
    if body.domain_id is not UNSET and body.domain_id != group.domain_id:
        raise BadRequest("Cannot change Domain ID.")
    if isinstance(body.name, str) and body.name != group.name:
        _refuse_taken_name(call.tx, group.domain_id, body.name)
    values: dict[str, object] = {
        name: value for name in ("name", "description") if (value := getattr(body, name)) is not UNSET
    }
    values["extra"] = {**group.extra, **given_extra(body)}
    call.tx.execute(update(store.groups).where(store.groups.c.id == group.id).values(**values))
    Identity.of(call).changed(call.tx)
    return {"group": group_view(call, known(group_in_path(call), "group", group.id))}


@IDENTITY.operation(
    "DELETE", "/groups/{group_id}", rules=(Rule(DELETE),), target=known_group_in_path, facts=group_facts, success=204
)
def delete_group(call: Call[Group, None]) -> None:
    """Delete a group; its members lose at once what they had by it."""
    group = call.target
    refuse_unless_administrator(call, DELETE, administrators.group_makes(call.tx, group.id))
    call.tx.execute(delete(store.groups).where(store.groups.c.id == group.id))
    Identity.of(call).changed(call.tx)


# -- members

MEMBERS = "/groups/{group_id}/users"
MEMBER = "/groups/{group_id}/users/{user_id}"


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """What the path of a member names. What does not exist is None until the rules are checked."""

    group: Group | None
    user: User | None


def membership_in_path(call: Call[object, object]) -> Membership:
    return Membership(group=group_in_path(call), user=user_in_path(call))


def membership_facts(call: Call[Membership, object]) -> Mapping[str, object]:
    facts: dict[str, object] = {}
    if group := call.target.group:
        facts |= {"target.group.id": group.id, "target.group.domain_id": group.domain_id}
    if user := call.target.user:
        facts |= {"target.user.id": user.id, "target.user.domain_id": user.domain_id}
    return facts


def _both(call: Call[Membership, object]) -> tuple[Group, User]:
    user = known(call.target.user, "user", call.path["user_id"])
    return known(call.target.group, "group", call.path["group_id"]), user


def _is_member(tx: Tx, group: Group, user: User) -> bool:
    m = store.memberships.c
    return tx.first(select(m.user_id).where(m.group_id == group.id, m.user_id == user.id)) is not None


class ListMembers(Query):
    domain_id: Annotated[str | Unset, On(store.users.c.domain_id)] = UNSET
    name: Annotated[str | Unset, On(store.users.c.name)] = UNSET
    enabled: Annotated[Flag | Unset, On(store.users.c.enabled)] = UNSET
    password_expires_at: Annotated[str | Unset, Compared(store.users.c.password_expires_at_us)] = UNSET


@IDENTITY.operation(
    "GET", MEMBERS, rules=(Rule(LIST_USERS),), target=group_in_path, facts=group_facts, query=ListMembers
)
def list_group_members(call: Call[Group | None, None]) -> dict[str, object]:
    """List the users in a group."""
    group = known(call.target, "group", call.path["group_id"])
    m, u = store.memberships.c, store.users.c
    inside = select(store.users).where(u.id.in_(select(m.user_id).where(m.group_id == group.id)))
    statement = filtered(call, inside)
    if call.caller.domain_id:
        statement = statement.where(u.domain_id == call.caller.domain_id)
    rows, following = page(call, statement, store.users)
    views = (user_view(call, User(**row._mapping)) for row in rows)
    return collection(call, f"groups/{group.id}/users", "users", views, next_marker=following)


@IDENTITY.operation(
    "GET", MEMBER, rules=(Rule(CHECK_USER),), target=membership_in_path, facts=membership_facts, success=204
)
def check_group_member(call: Call[Membership, None]) -> None:
    """Say whether a user is in a group."""
    group, user = _both(call)
    if not _is_member(call.tx, group, user):
        raise NotFound(f"User '{user.id}' not found in group '{group.id}'.")


@IDENTITY.operation(
    "PUT", MEMBER, rules=(Rule(ADD_USER),), target=membership_in_path, facts=membership_facts, body=Empty, success=204
)
def add_group_member(call: Call[Membership, Empty]) -> None:
    """Put a user into a group; once more is no error."""
    group, user = _both(call)
    _refuse_administrators(call, ADD_USER, group, user)
    if _is_member(call.tx, group, user):
        return
    m = store.memberships.c
    count = call.tx.scalar(select(func.count()).select_from(store.memberships).where(m.user_id == user.id))
    if count >= MOST_GROUPS_OF_USER:
        raise Forbidden(f"A user is in at most {MOST_GROUPS_OF_USER} groups.")
    call.tx.execute(insert(store.memberships).values(group_id=group.id, user_id=user.id))
    Identity.of(call).changed(call.tx)


@IDENTITY.operation(
    "DELETE", MEMBER, rules=(Rule(REMOVE_USER),), target=membership_in_path, facts=membership_facts, success=204
)
def remove_group_member(call: Call[Membership, None]) -> None:
    """Take a user out of a group; tokens that rest on it lose it at once."""
    group, user = _both(call)
    _refuse_administrators(call, REMOVE_USER, group, user)
    m = store.memberships.c
    if not call.tx.changed(delete(store.memberships).where(m.group_id == group.id, m.user_id == user.id)):
        raise NotFound(f"User '{user.id}' not found in group '{group.id}'.")
    Identity.of(call).changed(call.tx)


def _refuse_administrators(call: Call[Membership, object], rule_name: str, group: Group, user: User) -> None:
    concerns = administrators.group_makes(call.tx, group.id) or administrators.is_one(call.tx, user.id)
    refuse_unless_administrator(call, rule_name, concerns)


class ListUserGroups(Query):
    name: Annotated[str | Unset, On(store.groups.c.name)] = UNSET


@IDENTITY.operation(
    "GET",
    "/users/{user_id}/groups",
    rules=(Rule(LIST_OF_USER),),
    target=user_in_path,
    facts=user_facts,
    query=ListUserGroups,
)
def list_user_groups(call: Call[User | None, None]) -> dict[str, object]:
    """List the groups a user is in."""
    user = known(call.target, "user", call.path["user_id"])
    m, g = store.memberships.c, store.groups.c
    statement = filtered(call, select(store.groups).where(g.id.in_(select(m.group_id).where(m.user_id == user.id))))
    if call.caller.domain_id:
        statement = statement.where(g.domain_id == call.caller.domain_id)
    groups = store.many(call.tx, Group, statement.order_by(g.name, g.id).limit(MOST_GROUPS_OF_USER))
    return collection(call, f"users/{user.id}/groups", "groups", (group_view(call, group) for group in groups))
