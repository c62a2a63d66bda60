"""/users/{user_id}/application_credentials: secrets for programs, for one project, with some of their maker's roles."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select

from cumulet.clock import iso_us
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden
from cumulet.identity import holding, store
from cumulet.identity.api import (
    ADMIN,
    IDENTITY,
    NOT_DOMAIN,
    SYSTEM_READER,
    collection,
    known,
    member,
    moment,
    new_id,
    refuse_delegated,
)
from cumulet.identity.delegations import (
    AccessRule,
    ApplicationCredential,
    access_rules,
    application_credential_by_id,
    application_credentials,
    roles_of,
    rules_of,
)
from cumulet.identity.listing import On, filtered
from cumulet.identity.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD
from cumulet.identity.rule_paths import WILD
from cumulet.identity.service import Identity
from cumulet.identity.store import Role
from cumulet.identity.tokens import LiveToken
from cumulet.identity.users import Name, user_facts, user_in_path
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

_OWNER_SEES = f"({ADMIN}) or {SYSTEM_READER} or rule:owner"
GET = rule("identity:get_application_credential", _OWNER_SEES, scope=NOT_DOMAIN)
LIST = rule("identity:list_application_credentials", _OWNER_SEES, scope=NOT_DOMAIN)
CREATE = rule("identity:create_application_credential", "user_id:%(user_id)s", scope=("project",))
DELETE = rule("identity:delete_application_credential", "rule:admin_or_owner", scope=NOT_DOMAIN)
_RULE_SEEN = f"{SYSTEM_READER} or user_id:%(target.user.id)s"
GET_RULE = rule("identity:get_access_rule", _RULE_SEEN, scope=NOT_DOMAIN)
LIST_RULES = rule("identity:list_access_rules", _RULE_SEEN, scope=NOT_DOMAIN)
DELETE_RULE = rule(
    "identity:delete_access_rule", "(role:admin and system_scope:all) or user_id:%(target.user.id)s", scope=NOT_DOMAIN
)

MOST_OF_USER = 100
"""Application credentials of one user."""
MOST_RULES_OF_USER = 500
"""Access rules of one user; those of one application credential are at most `MOST_RULES`."""
MOST_RULES = 100
MOST_WILDCARDS = 16
"""In the path of one access rule. What comparing costs is bounded without it (`rule_paths`)."""
SECRET_BYTES = 64
_DELEGATED = "Cannot manage application credentials with a token issued via delegation."
_MORE_RULES = "An application credential with access rules makes others with some of these access rules only."
_RESTRICTED = (
    "You are not authorized to perform the requested action: Using method 'application_credential' is not allowed for "
    "managing additional application credentials."
)


class NamedRole(Body, min_properties=1):
    id: Annotated[str | Unset, Json({"maxLength": 64})] = UNSET
    name: Annotated[str | Unset, Json({"maxLength": 255})] = UNSET

    def found(self, tx: Tx) -> Role | None:
        """The role with this name or, where no name is given, with this id."""
        if isinstance(self.name, str):
            return store.role_by_name(tx, self.name)
        return store.role_by_id(tx, self.id) if isinstance(self.id, str) else None


class NewAccessRule(Body):
    id: Annotated[str | Unset, Json({"maxLength": 64})] = UNSET
    service: Annotated[str | Unset, Json({"minLength": 1, "maxLength": 64, "pattern": r"^[a-zA-Z0-9-]+$"})] = UNSET
    method: Literal["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"] | Unset = UNSET
    path: Annotated[str | Unset, Json({"maxLength": 225, "pattern": r"^/.*$"})] = UNSET


class NewApplicationCredential(Body, extra="allow", secret=True):
    name: Name
    description: Annotated[str | None, Json({"maxLength": 1024})] = None
    secret: Annotated[str | None, Json({"minLength": SHORTEST_PASSWORD, "maxLength": LONGEST_PASSWORD})] = None
    expires_at: Annotated[str | None, Json({"maxLength": 64})] = None
    roles: Annotated[list[NamedRole] | Unset, Json({"maxItems": 100})] = UNSET
    unrestricted: bool | None = None
    access_rules: Annotated[list[NewAccessRule] | Unset, Json({"maxItems": MOST_RULES})] = UNSET


CREDENTIALS = "/users/{user_id}/application_credentials"
CREDENTIAL = "/users/{user_id}/application_credentials/{application_credential_id}"


def _view(
    call: Call[object, object], credential: ApplicationCredential, secret: str | None = None
) -> dict[str, object]:
    rules = rules_of(call.tx, credential)
    path = f"users/{credential.user_id}/application_credentials"
    view: dict[str, object] = {
        "id": credential.id,
        "name": credential.name,
        "description": credential.description,
        "user_id": credential.user_id,
        "project_id": credential.project_id,
        "system": None,
        "unrestricted": credential.unrestricted,
        "expires_at": iso_us(credential.expires_at_us) if credential.expires_at_us is not None else None,
        "roles": [
            {
                "id": role.id,
                "name": role.name,
                "domain_id": role.domain_id,
                "description": role.description,
                "options": role.options,
            }
            for role in roles_of(call.tx, credential.role_ids)
        ],
        "links": member(call, path, credential.id),
    }
    if rules is not None:
        view["access_rules"] = [rule.view() for rule in rules]
    if secret is not None:
        view["secret"] = secret
    return view


def path_facts(call: Call[object, object]) -> Mapping[str, object]:
    return {"user_id": call.path["user_id"]}


def credential_in_path(call: Call[object, object]) -> ApplicationCredential | None:
    return application_credential_by_id(call.tx, call.path["application_credential_id"])


def credential_facts(call: Call[ApplicationCredential | None, object]) -> Mapping[str, object]:
    """The owner of the credential, as upstream. Where there is no such credential: the user in the path."""
    return {"user_id": call.target.user_id if call.target else call.path["user_id"]}


class ListCredentials(Query):
    name: Annotated[str | Unset, On(application_credentials.c.name)] = UNSET


@IDENTITY.operation("GET", CREDENTIALS, rules=(Rule(LIST),), facts=path_facts, query=ListCredentials)
def list_application_credentials(call: Call[None, None]) -> dict[str, object]:
    """List a user's application credentials."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    c, user_id = application_credentials.c, call.path["user_id"]
    known(store.user_by_id(call.tx, user_id), "user", user_id)
    statement = filtered(call, select(application_credentials).where(c.user_id == user_id)).order_by(c.name)
    found = store.many(call.tx, ApplicationCredential, statement)
    views = [_view(call, credential) for credential in found]
    return collection(call, f"users/{user_id}/application_credentials", "application_credentials", views)


@IDENTITY.operation("GET", CREDENTIAL, rules=(Rule(GET),), target=credential_in_path, facts=credential_facts)
def show_application_credential(call: Call[ApplicationCredential | None, None]) -> dict[str, object]:
    """Show an application credential, without its secret."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    return {"application_credential": _view(call, _known(call))}


def _known(call: Call[ApplicationCredential | None, object]) -> ApplicationCredential:
    mine = call.target is not None and call.target.user_id == call.path["user_id"]
    return known(call.target if mine else None, "Application Credential", call.path["application_credential_id"])


def _refuse_restricted(call: Call[object, object]) -> None:
    given = LiveToken.of(call.caller).given
    if given is not None and given.application_credential is not None and not given.application_credential.unrestricted:
        raise Forbidden(_RESTRICTED)


@IDENTITY.operation(
    "POST",
    CREDENTIALS,
    rules=(Rule(CREATE),),
    facts=path_facts,
    body=NewApplicationCredential,
    body_key="application_credential",
    success=201,
)
async def create_application_credential(call: Call[None, NewApplicationCredential]) -> dict[str, object]:
    """Make an application credential for the project of one's token; its secret is shown this once."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    _refuse_restricted(call)
    body, user_id, project_id = call.body, call.path["user_id"], call.caller.project_id
    if user_id != call.caller.user_id:
        raise Forbidden("Cannot create an application credential for another user.")
    if project_id is None:
        raise BadRequest("Invalid application credential: a token for a project is needed.")
    identity = Identity.of(call)
    expires_at_us = moment(body.expires_at, call.now_us) if body.expires_at is not None else None
    secret = body.secret or base64.urlsafe_b64encode(call.cloud.clock.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    secret_hash = await identity.passwords.hash(secret)

    def work(tx: Tx) -> dict[str, object]:
        call.tx = tx
        _refuse_too_many(tx, user_id, body.name)
        credential = ApplicationCredential(
            id=new_id(call.cloud.clock),
            user_id=user_id,
            project_id=project_id,
            name=body.name,
            description=body.description,
            secret_hash=secret_hash,
            unrestricted=bool(body.unrestricted),
            expires_at_us=expires_at_us,
            role_ids=_roles(tx, call, project_id),
            access_rule_ids=_rules(tx, call) if body.access_rules is not UNSET else None,
        )
        _refuse_more_rules(call, credential)
        tx.execute(insert(application_credentials).values(**asdict(credential)))
        return {"application_credential": _view(call, credential, secret)}

    made: dict[str, object] = await call.cloud.db.write_async(work)
    return made


def _refuse_more_rules(call: Call[None, NewApplicationCredential], made: ApplicationCredential) -> None:
    """403 for a new credential that allows more requests than the one it is made with. Upstream lets an unrestricted
    credential make one without access rules."""
    given = LiveToken.of(call.caller).given
    own = given.access_rules if given is not None else None
    if own is not None and (made.access_rule_ids is None or not {*made.access_rule_ids} <= {rule.id for rule in own}):
        raise Forbidden(_MORE_RULES)


def _refuse_too_many(tx: Tx, user_id: str, name: str) -> None:
    c = application_credentials.c
    count = select(func.count()).select_from(application_credentials).where(c.user_id == user_id)
    if tx.scalar(count) >= MOST_OF_USER:
        raise Forbidden(
            f"Unable to create additional application credentials, maximum of {MOST_OF_USER} already exceeded for user."
        )
    if tx.scalar(count.where(c.name == name)):
        raise Conflict(
            f"Conflict occurred attempting to store application_credential - Duplicate entry found with name {name}."
        )


def _roles(tx: Tx, call: Call[None, NewApplicationCredential], project_id: str) -> list[str]:
    """The ids of the roles asked for and those they imply; without roles asked for, all roles of the caller's token.

    400 for a role that is not in the token, or not held any more."""
    live = LiveToken.of(call.caller)
    given = {role.id for role in live.roles}
    still = {role.id for role in holding.effective_roles(tx, live.user.id, "project", project_id)}
    if call.body.roles is UNSET or not call.body.roles:
        return sorted(given & still)
    wanted = set()
    for named in call.body.roles:
        role = named.found(tx)
        if role is None:
            raise BadRequest("Invalid application credential: Could not find role.")
        wanted.add(role.id)
    reached = {role.id for role in holding.named(tx, wanted)}
    if not reached <= given & still or not wanted <= reached:
        raise BadRequest("Invalid application credential: Cannot create an application credential with unassigned role")
    return sorted(reached)


def _rules(tx: Tx, call: Call[None, NewApplicationCredential]) -> list[str]:
    """The ids of the access rules asked for. Rules that the user does not have yet are made."""
    user_id, r = call.path["user_id"], access_rules.c
    own = {rule.id: rule for rule in store.many(tx, AccessRule, select(access_rules).where(r.user_id == user_id))}
    alike = {(rule.service, rule.method, rule.path): rule.id for rule in own.values()}
    ids: list[str] = []
    assert not isinstance(call.body.access_rules, msgspec.UnsetType)
    for asked in call.body.access_rules:
        if isinstance(asked.id, str):
            ids.append(known(own.get(asked.id), "Access Rule", asked.id).id)
            continue
        if not (isinstance(asked.service, str) and isinstance(asked.method, str) and isinstance(asked.path, str)):
            raise BadRequest("Invalid input for field access_rules: service, method and path are needed.")
        if len(WILD.findall(asked.path)) > MOST_WILDCARDS:
            raise BadRequest(f"Invalid input for field access_rules: a path has at most {MOST_WILDCARDS} wildcards.")
        key = (asked.service, asked.method, asked.path)
        if key not in alike:
            if len(alike) >= MOST_RULES_OF_USER:
                raise Forbidden(f"A user has at most {MOST_RULES_OF_USER} access rules.")
            alike[key] = new_id(call.cloud.clock)
            values = {"service": asked.service, "method": asked.method, "path": asked.path}
            tx.execute(insert(access_rules).values(id=alike[key], user_id=user_id, **values))
        ids.append(alike[key])
    return list(dict.fromkeys(ids))


@IDENTITY.operation(
    "DELETE",
    CREDENTIAL,
    rules=(Rule(DELETE),),
    target=credential_in_path,
    facts=credential_facts,
    success=204,
)
def delete_application_credential(call: Call[ApplicationCredential | None, None]) -> None:
    """Delete an application credential; tokens made from it end at once."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    _refuse_restricted(call)
    credential = _known(call)
    call.tx.execute(delete(application_credentials).where(application_credentials.c.id == credential.id))
    Identity.of(call).end_delegation(call.tx, credential.id)


# -- access rules

RULES = "/users/{user_id}/access_rules"
RULE = "/users/{user_id}/access_rules/{access_rule_id}"


def _rule_view(call: Call[object, object], rule: AccessRule) -> dict[str, object]:
    return {**rule.view(), "links": member(call, f"users/{rule.user_id}/access_rules", rule.id)}


def _rule_in_path(call: Call[object, object]) -> AccessRule:
    r = access_rules.c
    statement = select(access_rules).where(r.id == call.path["access_rule_id"], r.user_id == call.path["user_id"])
    return known(store.one(call.tx, AccessRule, statement), "Access Rule", call.path["access_rule_id"])


class ListRules(Query):
    service: Annotated[str | Unset, On(access_rules.c.service)] = UNSET
    path: Annotated[str | Unset, On(access_rules.c.path)] = UNSET
    method: Annotated[str | Unset, On(access_rules.c.method)] = UNSET


@IDENTITY.operation("GET", RULES, rules=(Rule(LIST_RULES),), target=user_in_path, facts=user_facts, query=ListRules)
def list_access_rules(call: Call[object, None]) -> dict[str, object]:
    """List a user's access rules."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    r, user_id = access_rules.c, call.path["user_id"]
    statement = filtered(call, select(access_rules).where(r.user_id == user_id)).order_by(r.id)
    views = [_rule_view(call, rule) for rule in store.many(call.tx, AccessRule, statement)]
    return collection(call, f"users/{user_id}/access_rules", "access_rules", views)


@IDENTITY.operation("GET", RULE, rules=(Rule(GET_RULE),), target=user_in_path, facts=user_facts)
def show_access_rule(call: Call[object, None]) -> dict[str, object]:
    """Show an access rule."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    return {"access_rule": _rule_view(call, _rule_in_path(call))}


@IDENTITY.operation("DELETE", RULE, rules=(Rule(DELETE_RULE),), target=user_in_path, facts=user_facts, success=204)
def delete_access_rule(call: Call[object, None]) -> None:
    """Delete an access rule that no application credential has."""
    refuse_delegated(call, _DELEGATED, but_for_credentials=True)
    _refuse_restricted(call)
    found = _rule_in_path(call)
    c = application_credentials.c
    rows = call.tx.all(select(c.access_rule_ids).where(c.user_id == found.user_id))
    if any(found.id in (row.access_rule_ids or ()) for row in rows):
        raise Forbidden("May not delete access rule in use")
    call.tx.execute(delete(access_rules).where(access_rules.c.id == found.id))
