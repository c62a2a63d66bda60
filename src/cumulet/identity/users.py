"""/users: people and programs, their passwords, and what they may choose as scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec.structs import asdict
from sqlalchemy import delete, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Unauthorized
from cumulet.identity import administrators, holding, store
from cumulet.identity.administrators import refuse_unless_administrator
from cumulet.identity.api import (
    ADMIN,
    ANYWHERE,
    IDENTITY,
    SYSTEM_READER,
    collection,
    known,
    member,
    new_id,
    refuse_delegated,
)
from cumulet.identity.delegations import application_credentials
from cumulet.identity.domain_configuration import page_of_domain
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import AskedId, AskedName, Compared, Flag, Never, On, filtered
from cumulet.identity.login_methods import UNAUTHENTICATED, UserNamed, password_holder
from cumulet.identity.multi_factor import RULES, refuse_unknown_factors
from cumulet.identity.password_rules import (
    end_of_new_password,
    hashes_not_to_match,
    is_idle,
    note_new_password,
    refuse_earlier_password,
    refuse_too_early,
    refuse_unmatched_password,
    unlock,
)
from cumulet.identity.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD
from cumulet.identity.projects import Id, domain_of_new, own_domain_facts, project_views
from cumulet.identity.service import Identity
from cumulet.identity.store import Project, User
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

_MANAGE = f"({ADMIN}) or (role:manager and token.domain.id:%(target.user.domain_id)s)"

GET = rule(
    "identity:get_user",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and token.domain.id:%(target.user.domain_id)s) "
    "or user_id:%(target.user.id)s",
    scope=ANYWHERE,
)
LIST = rule(
    "identity:list_users",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.domain_id)s)",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_user", _MANAGE, scope=ANYWHERE)
UPDATE = rule("identity:update_user", _MANAGE, scope=ANYWHERE)
DELETE = rule("identity:delete_user", _MANAGE, scope=ANYWHERE)
LIST_PROJECTS = rule(
    "identity:list_user_projects",
    f"({ADMIN}) or {SYSTEM_READER} or (role:reader and domain_id:%(target.user.domain_id)s) "
    "or user_id:%(target.user.id)s",
    scope=ANYWHERE,
)

REVOKE_TOKENS = rule("identity:revoke_tokens_for_user", "rule:admin_or_owner", scope=ANYWHERE)

Name = Annotated[str, Json({"minLength": 1, "maxLength": 255, "pattern": r"\S"})]
_NEW_PASSWORD = Json({"minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD})
Password = Annotated[str | None, _NEW_PASSWORD]
UserOptions = Annotated[
    dict[str, object],
    Json(
        {
            "properties": {
                "ignore_change_password_upon_first_use": {"type": ["boolean", "null"]},
                "ignore_password_expiry": {"type": ["boolean", "null"]},
                "ignore_lockout_failure_attempts": {"type": ["boolean", "null"]},
                "ignore_user_inactivity": {"type": ["boolean", "null"]},
                "lock_password": {"type": ["boolean", "null"]},
                "multi_factor_auth_enabled": {"type": ["boolean", "null"]},
                "multi_factor_auth_rules": RULES,
            },
            "additionalProperties": False,
        }
    ),
]


class NewUser(Body, extra="allow", secret=True):
    name: Name
    password: Password = None
    domain_id: Id = None
    default_project_id: str | None = None
    enabled: bool = True
    description: str | Unset | None = UNSET
    options: UserOptions | Unset = UNSET


class UserChanges(Body, extra="allow", min_properties=1, secret=True):
    name: Name | Unset = UNSET
    password: Password | Unset = UNSET
    domain_id: Id | Unset = UNSET
    default_project_id: str | Unset | None = UNSET
    enabled: bool | Unset = UNSET
    description: str | Unset | None = UNSET
    options: UserOptions | Unset = UNSET


class PasswordChange(Body, secret=True):
    original_password: Annotated[str, Json({"maxLength": LONGEST_PASSWORD})]
    password: Annotated[str, _NEW_PASSWORD]


def user_view(call: Call[object, object], user: User) -> dict[str, object]:
    view = {
        **user.extra,
        "id": user.id,
        "name": user.name,
        "domain_id": user.domain_id,
        "enabled": user.enabled and not is_idle(Identity.of(call).settings, user, call.now_us),
        "password_expires_at": user.password_expires_at,
        "options": user.options,
        "links": member(call, "users", user.id),
    }
    if user.default_project_id is not None:
        view["default_project_id"] = user.default_project_id
    return view


def user_in_path(call: Call[object, object]) -> User | None:
    return store.user_by_id(call.tx, call.path["user_id"])


def user_facts(call: Call[User | None, object]) -> Mapping[str, object]:
    facts: dict[str, object] = {"user_id": call.path["user_id"]}
    if call.target:
        facts |= {"target.user.id": call.target.id, "target.user.domain_id": call.target.domain_id}
    return facts


def new_user_facts(call: Call[None, NewUser]) -> Mapping[str, object]:
    return {"target.user.domain_id": call.body.domain_id} if call.body.domain_id else {}


class ListUsers(Query):
    domain_id: Annotated[AskedId | Unset, On(store.users.c.domain_id)] = UNSET
    name: Annotated[AskedName | Unset, On(store.users.c.name)] = UNSET
    enabled: Annotated[Flag | Unset, On(store.users.c.enabled)] = UNSET
    sort_dir: Literal["asc", "desc"] | Unset = UNSET
    """Checked, but without effect, as in Keystone."""
    password_expires_at: Annotated[str | Unset, Compared(store.users.c.password_expires_at_us)] = UNSET
    idp_id: Annotated[str | Unset, Never()] = UNSET
    protocol_id: Annotated[str | Unset, Never()] = UNSET
    unique_id: Annotated[str | Unset, Never()] = UNSET
    """No user comes from elsewhere."""


@IDENTITY.operation("GET", "/users", rules=(Rule(LIST),), facts=own_domain_facts, query=ListUsers)
def list_users(call: Call[None, None]) -> dict[str, object]:
    """List users."""
    rows, following = page_of_domain(call, store.users)
    views = (user_view(call, User(**row._mapping)) for row in rows)
    return collection(call, "users", "users", views, next_marker=following)


@IDENTITY.operation("GET", "/users/{user_id}", rules=(Rule(GET),), target=user_in_path, facts=user_facts)
def show_user(call: Call[User | None, None]) -> dict[str, object]:
    """Show a user."""
    return {"user": user_view(call, known(call.target, "user", call.path["user_id"]))}


@IDENTITY.operation(
    "POST", "/users", rules=(Rule(CREATE),), facts=new_user_facts, body=NewUser, body_key="user", success=201
)
async def create_user(call: Call[None, NewUser]) -> dict[str, object]:
    """Create a user. Without a password it cannot log in."""
    body = call.body
    identity = Identity.of(call)
    options = {} if body.options is UNSET else body.options
    refuse_unknown_factors(options)
    if body.password is not None:
        refuse_unmatched_password(identity.settings, body.password)
    password_hash = await identity.passwords.hash(body.password) if body.password is not None else None
    end_us = end_of_new_password(identity.settings, options, call.now_us, self_service=False)

    def work(tx: Tx) -> User:
        domain_id = domain_of_new(tx, call.caller, body.domain_id)
        _refuse_taken_name(tx, domain_id, body.name)
        user = User(
            id=new_id(call.cloud.clock),
            domain_id=domain_id,
            name=body.name,
            enabled=body.enabled,
            password_hash=password_hash,
            default_project_id=body.default_project_id,
            options=options,
            extra=given_extra(body, description=body.description),
            tokens_not_before_us=0,
            password_expires_at_us=end_us if password_hash is not None else None,
            last_active_us=call.now_us,
        )
        tx.execute(insert(store.users).values(**asdict(user)))
        return user

    return {"user": user_view(call, await call.cloud.db.write_async(work))}


def _refuse_taken_name(tx: Tx, domain_id: str, name: str) -> None:
    if store.user_by_name(tx, domain_id, name) is not None:
        raise Conflict(f"Conflict occurred attempting to store user - Duplicate entry found with name {name}.")


@IDENTITY.operation(
    "PATCH",
    "/users/{user_id}",
    rules=(Rule(UPDATE),),
    target=user_in_path,
    facts=user_facts,
    body=UserChanges,
    body_key="user",
)
async def update_user(call: Call[User | None, UserChanges]) -> dict[str, object]:
    """Change a user. Disabling it or giving it another password ends its tokens at once."""
    body = call.body
    identity = Identity.of(call)
    user_id = known(call.target, "user", call.path["user_id"]).id
    if body.options is not UNSET:
        refuse_unknown_factors(body.options)
    values: dict[str, object] = {
        name: value for name in ("name", "enabled", "default_project_id") if (value := getattr(body, name)) is not UNSET
    }
    if isinstance(body.password, str):
        refuse_unmatched_password(identity.settings, body.password)
        values["password_hash"] = await identity.passwords.hash(body.password)
    elif body.password is None:
        values |= {"password_hash": None, "password_expires_at_us": None}

    def work(tx: Tx) -> User:
        user = known(store.user_by_id(tx, user_id), "user", user_id)
        refuse_unless_administrator(call, UPDATE, administrators.is_one(tx, user_id))
        if body.domain_id is not UNSET and body.domain_id != user.domain_id:
            raise BadRequest("Cannot change Domain ID.")
        if isinstance(body.name, str) and body.name != user.name:
            _refuse_taken_name(tx, user.domain_id, body.name)
        options = user.options if body.options is UNSET else {**user.options, **body.options}
        if isinstance(values.get("password_hash"), str):
            values["password_expires_at_us"] = end_of_new_password(
                identity.settings, options, call.now_us, self_service=False
            )
            note_new_password(tx, identity.settings, user, call.now_us, self_service=False)
        if values.get("enabled"):
            unlock(tx, user_id)
            values["last_active_us"] = call.now_us
        extra = {**user.extra, **given_extra(body, description=body.description)}
        statement = update(store.users).where(store.users.c.id == user_id)
        tx.execute(statement.values(**values, options=options, extra=extra))
        if values.get("enabled") is False or "password_hash" in values:
            store.revoke_tokens(tx, store.users, user_id, call.now_us)
        if values.get("enabled") is False:
            tx.execute(delete(application_credentials).where(application_credentials.c.user_id == user_id))
        identity.changed(tx)
        return known(store.user_by_id(tx, user_id), "user", user_id)

    return {"user": user_view(call, await call.cloud.db.write_async(work))}


@IDENTITY.operation(
    "DELETE", "/users/{user_id}", rules=(Rule(DELETE),), target=user_in_path, facts=user_facts, success=204
)
def delete_user(call: Call[User | None, None]) -> None:
    """Delete a user, its roles and, at once, its tokens."""
    user = known(call.target, "user", call.path["user_id"])
    refuse_unless_administrator(call, DELETE, administrators.is_one(call.tx, user.id))
    call.tx.execute(delete(store.users).where(store.users.c.id == user.id))
    Identity.of(call).changed(call.tx)


@IDENTITY.operation("POST", "/users/{user_id}/password", body=PasswordChange, body_key="user", success=204, public=True)
async def change_password(call: Call[None, PasswordChange]) -> None:
    """Change one's own password; the old one is needed. Ends all tokens of the user at once."""
    identity, now_us = Identity.of(call), call.now_us
    settings = identity.settings
    named = UserNamed(id=call.path["user_id"], password=call.body.original_password)
    user = await password_holder(call, named, expired_too=True)
    if user.options.get("lock_password"):
        raise BadRequest("The password of this user can be changed by an administrator only.")

    refuse_unmatched_password(settings, call.body.password)

    def look(tx: Tx) -> list[str]:
        refuse_too_early(tx, settings, user, now_us)
        return hashes_not_to_match(tx, settings, user)

    await refuse_earlier_password(identity.passwords, await call.cloud.db.read_async(look), call.body.password)
    password_hash = await identity.passwords.hash(call.body.password)
    end_us = end_of_new_password(settings, user.options, now_us, self_service=True)

    def work(tx: Tx) -> None:
        # Only if it is still the password that was shown: of two changes at once, one wins.
        u = store.users.c
        statement = update(store.users).where(u.id == user.id, u.password_hash == user.password_hash, u.enabled)
        if not tx.changed(statement.values(password_hash=password_hash, password_expires_at_us=end_us)):
            raise Unauthorized(UNAUTHENTICATED, private="the password was changed meanwhile")
        note_new_password(tx, settings, user, now_us, self_service=True)
        identity.end_tokens_of_user(tx, user.id)

    await call.cloud.db.write_async(work)
    call.proved = user.id


@IDENTITY.operation(
    "DELETE",
    "/users/{user_id}/tokens",
    rules=(Rule(REVOKE_TOKENS),),
    target=user_in_path,
    facts=user_facts,
    success=204,
)
def revoke_tokens_of_user(call: Call[User | None, None]) -> None:
    """End all tokens of a user at once, one's own or, as an administrator, anybody's."""
    refuse_delegated(call, "Cannot end the tokens of a user with a token issued via delegation.")
    identity = Identity.of(call)
    identity.end_tokens_of_user(call.tx, known(call.target, "user", call.path["user_id"]).id)


class ListUserProjects(Query):
    domain_id: Annotated[str | Unset, On(store.projects.c.domain_id)] = UNSET
    name: Annotated[str | Unset, On(store.projects.c.name)] = UNSET
    enabled: Annotated[str | Unset, On(store.projects.c.enabled)] = UNSET


@IDENTITY.operation(
    "GET",
    "/users/{user_id}/projects",
    rules=(Rule(LIST_PROJECTS),),
    target=user_in_path,
    facts=user_facts,
    query=ListUserProjects,
)
def list_user_projects(call: Call[User | None, None]) -> dict[str, object]:
    """List the projects a user has a role in."""
    user = known(call.target, "user", call.path["user_id"])
    p = store.projects.c
    statement = filtered(call, select(store.projects).where(holding.projects_of(user.id)))
    projects = store.many(call.tx, Project, statement.order_by(p.name, p.id).limit(call.cloud.settings.largest_page))
    return collection(call, f"users/{user.id}/projects", "projects", project_views(call, projects))
