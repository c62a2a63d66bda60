"""/OS-TRUST/trusts: a user lets another act with some of their roles in a project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypedDict

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, or_, select

from cumulet.clock import iso_us
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden, NotFound
from cumulet.identity import holding, store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    IDENTITY,
    NOT_DOMAIN,
    SYSTEM_READER,
    collection,
    known,
    member,
    moment,
    new_id,
)
from cumulet.identity.application_credentials import NamedRole
from cumulet.identity.delegations import Trust, pedigree, roles_of, trust_by_id, trusts
from cumulet.identity.roles import role_view
from cumulet.identity.service import Identity
from cumulet.identity.store import Role
from cumulet.identity.tokens import LiveToken
from cumulet.identity.trusted import live_trust
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

_TRUSTOR, _TRUSTEE = "user_id:%(target.trust.trustor_user_id)s", "user_id:%(target.trust.trustee_user_id)s"
_EITHER = f"({ADMIN}) or ({SYSTEM_READER[1:-1]} or {_TRUSTOR} or {_TRUSTEE})"
CREATE = rule("identity:create_trust", _TRUSTOR, scope=("project",))
LIST = rule("identity:list_trusts", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
LIST_OF_TRUSTOR = rule(
    "identity:list_trusts_for_trustor", f"({ADMIN}) or ({SYSTEM_READER[1:-1]} or {_TRUSTOR})", scope=NOT_DOMAIN
)
LIST_OF_TRUSTEE = rule(
    "identity:list_trusts_for_trustee", f"({ADMIN}) or ({SYSTEM_READER[1:-1]} or {_TRUSTEE})", scope=NOT_DOMAIN
)
GET = rule("identity:get_trust", _EITHER, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_trust", f"{ADMIN} or {_TRUSTOR}", scope=NOT_DOMAIN)
LIST_ROLES = rule("identity:list_roles_for_trust", _EITHER, scope=NOT_DOMAIN)
GET_ROLE = rule("identity:get_role_for_trust", _EITHER, scope=NOT_DOMAIN)

MOST_REDELEGATIONS = 3
"""How often a trust may be passed on: upstream's `max_redelegation_count`."""
MOST_OF_TRUSTOR = 100
"""Trusts of one user."""
_ACTION = "You are not authorized to perform the requested action: "

UserId = Annotated[str, Json({"minLength": 1, "maxLength": 64})]


class NewTrust(Body, extra="allow"):
    trustor_user_id: UserId
    trustee_user_id: UserId
    impersonation: bool
    project_id: Annotated[str | None, Json({"maxLength": 64})] = None
    roles: Annotated[list[NamedRole] | Unset, Json({"maxItems": 100})] = UNSET
    expires_at: Annotated[str | None, Json({"maxLength": 64})] = None
    remaining_uses: Annotated[int | None, Json({"minimum": 1, "maximum": 2**31 - 1})] = None
    allow_redelegation: bool | None = None
    redelegation_count: Annotated[int | None, Json({"minimum": 0, "maximum": 2**31 - 1})] = None


TRUSTS = "/OS-TRUST/trusts"
TRUST = "/OS-TRUST/trusts/{trust_id}"


class TrustView(TypedDict):
    """A trust as lists show it; alone it has its roles, too."""

    id: str
    trustor_user_id: str
    trustee_user_id: str
    project_id: str | None
    impersonation: bool
    remaining_uses: int | None
    expires_at: str | None
    redelegation_count: int
    redelegated_trust_id: str | None
    deleted_at: None
    links: dict[str, str]


def _plain_view(call: Call[object, object], trust: Trust) -> TrustView:
    return {
        "id": trust.id,
        "trustor_user_id": trust.trustor_user_id,
        "trustee_user_id": trust.trustee_user_id,
        "project_id": trust.project_id,
        "impersonation": trust.impersonation,
        "remaining_uses": trust.remaining_uses,
        "expires_at": f"{iso_us(trust.expires_at_us)}Z" if trust.expires_at_us is not None else None,
        "redelegation_count": trust.redelegation_count,
        "redelegated_trust_id": trust.redelegated_trust_id,
        "deleted_at": None,
        "links": member(call, TRUSTS[1:], trust.id),
    }


def _view(call: Call[object, object], trust: Trust) -> dict[str, object]:
    roles = [role_view(call, role) for role in roles_of(call.tx, trust.role_ids)]
    links = {"self": f"{call.service_url}{TRUSTS}/{trust.id}/roles", "next": None, "previous": None}
    return {**_plain_view(call, trust), "roles": roles, "roles_links": links}


def trust_in_path(call: Call[object, object]) -> Trust:
    """A trust that is there: as upstream, 404 comes before the rules."""
    return live_trust(call.tx, call.path["trust_id"], call.now_us)


def stored_trust_in_path(call: Call[object, object]) -> Trust:
    """A trust that may be used up: tokens made from it may still have to be ended."""
    return known(trust_by_id(call.tx, call.path["trust_id"]), "trust", call.path["trust_id"])


def trust_facts(call: Call[Trust, object]) -> Mapping[str, object]:
    return {
        "target.trust.trustor_user_id": call.target.trustor_user_id,
        "target.trust.trustee_user_id": call.target.trustee_user_id,
    }


def new_trust_facts(call: Call[None, NewTrust]) -> Mapping[str, object]:
    return {"target.trust.trustor_user_id": call.body.trustor_user_id}


def _refuse_delegated(call: Call[object, object]) -> None:
    """403 for delegated tokens except those of trusts, which may be passed on: a trust would outlive the others."""
    by = LiveToken.of(call.caller).token.by
    if by.application_credential_id or by.credential_id or by.access_token_id:
        raise Forbidden(f"{_ACTION}Delegated tokens cannot manage trusts.")


@IDENTITY.operation("GET", TRUSTS, rules=())
def list_trusts(call: Call[None, None]) -> dict[str, object]:
    """List trusts: those of a trustor, those to a trustee or, for administrators, all."""
    t, statement = trusts.c, select(trusts)
    trustor, trustee = call.query.get("trustor_user_id"), call.query.get("trustee_user_id")
    if trustor:
        call.require(LIST_OF_TRUSTOR, {"target.trust.trustor_user_id": trustor})
        statement = statement.where(t.trustor_user_id == trustor)
    elif trustee:
        call.require(LIST_OF_TRUSTEE, {"target.trust.trustee_user_id": trustee})
        statement = statement.where(t.trustee_user_id == trustee)
    else:
        call.require(LIST, {})
    _refuse_delegated(call)
    alive = or_(t.expires_at_us.is_(None), t.expires_at_us > call.now_us)
    usable = or_(t.remaining_uses.is_(None), t.remaining_uses > 0)
    statement = statement.where(alive, usable).order_by(t.id).limit(call.cloud.settings.largest_page)
    views = [_plain_view(call, trust) for trust in store.many(call.tx, Trust, statement)]
    return collection(call, TRUSTS[1:], "trusts", views)


@IDENTITY.operation(
    "POST", TRUSTS, rules=(Rule(CREATE),), facts=new_trust_facts, body=NewTrust, body_key="trust", success=201
)
def create_trust(call: Call[None, NewTrust]) -> dict[str, object]:
    """Let another user act with some of one's roles in a project; with a trust's token, pass it on."""
    _refuse_delegated(call)
    tx, body = call.tx, call.body
    if not body.roles:
        raise Forbidden(f"{_ACTION}At least one role should be specified.")
    if body.project_id is None:
        raise BadRequest("Invalid input for field project_id: trusts are for projects.")
    if call.caller.user_id != body.trustor_user_id:
        raise Forbidden(f"{_ACTION}The authenticated user should match the trustor.")
    known(store.user_by_id(tx, body.trustee_user_id), "user", body.trustee_user_id)
    by = LiveToken.of(call.caller).token.by
    if not by.trust_id:
        known(holding.project_of(tx, body.trustor_user_id, body.project_id), "project", body.project_id)
    if tx.scalar(select(func.count()).select_from(trusts).where(trusts.c.trustor_user_id == body.trustor_user_id)) >= (
        MOST_OF_TRUSTOR
    ):
        _delete_unusable(call)
    parent = live_trust(tx, by.trust_id, call.now_us) if by.trust_id else None
    expires_at_us = moment(body.expires_at, call.now_us) if body.expires_at is not None else None
    trust = Trust(
        id=new_id(call.cloud.clock),
        trustor_user_id=body.trustor_user_id,
        trustee_user_id=body.trustee_user_id,
        project_id=body.project_id,
        impersonation=body.impersonation,
        remaining_uses=body.remaining_uses,
        expires_at_us=parent.expires_at_us if parent is not None and expires_at_us is None else expires_at_us,
        redelegation_count=_redelegations(body, parent),
        redelegated_trust_id=parent.id if parent else None,
        role_ids=_roles_given(tx, body, parent),
    )
    for link in pedigree(tx, parent) if parent is not None else ():
        _refuse_more_than(link, trust)
    tx.execute(insert(trusts).values(**asdict(trust)))
    return {"trust": _view(call, trust)}


def _delete_unusable(call: Call[None, NewTrust]) -> None:
    """Delete the trusts of the trustor that can no longer be used; 403 where there are none."""
    t = trusts.c
    dead = or_(t.expires_at_us <= call.now_us, t.remaining_uses == 0)
    mine = select(t.id).where(t.trustor_user_id == call.body.trustor_user_id, dead)
    ids = [row.id for row in call.tx.all(mine)]
    if not ids:
        raise Forbidden(f"A user has at most {MOST_OF_TRUSTOR} trusts.")
    _delete(call, ids)


def _roles_given(tx: Tx, body: NewTrust, parent: Trust | None) -> list[str]:
    """The roles asked for, all of which the first trustor of the chain holds in the project."""
    assert body.project_id is not None
    first = pedigree(tx, parent)[-1] if parent is not None else None
    if first is not None and first.project_id != body.project_id:
        raise Forbidden("A trust is passed on for its own project only.")
    user_id = first.trustor_user_id if first is not None else body.trustor_user_id
    a = store.assignments.c
    direct = select(a.role_id).where(holding.held_by(user_id), holding.reaching(tx, "project", body.project_id))
    held = holding.with_implied(tx, {row.role_id for row in tx.all(direct)})
    found: list[str] = []
    for named in body.roles or ():
        role = named.found(tx)
        if role is None or role.id not in held:
            raise NotFound(f"Could not find role: {role.id if role else named.id or named.name}.")
        found.append(role.id)
    return list(dict.fromkeys(found))


def _redelegations(body: NewTrust, parent: Trust | None) -> int:
    """How often the new trust may be passed on."""
    asked = body.redelegation_count
    left = MOST_REDELEGATIONS if parent is None else parent.redelegation_count - 1
    if not body.allow_redelegation or asked == 0:
        return 0
    if body.remaining_uses is not None:
        raise BadRequest("remaining_uses must not be set if redelegation is allowed")
    if asked is not None and asked > MOST_REDELEGATIONS:
        raise Forbidden(f"Requested redelegation depth of {asked} is greater than allowed {MOST_REDELEGATIONS}")
    if parent is not None and asked is not None and asked != left:
        raise Forbidden(
            'Modifying "redelegation_count" upon redelegation is forbidden. Omitting this parameter is advised.'
        )
    return left if asked is None else asked


def _refuse_more_than(parent: Trust, trust: Trust) -> None:
    """403 where a trust gives more, or lasts longer, than `parent`, which it is made from."""
    if not 0 < parent.redelegation_count <= MOST_REDELEGATIONS:
        raise Forbidden(
            f"Remaining redelegation depth of {parent.redelegation_count} out of allowed range of "
            f"[0..{MOST_REDELEGATIONS}]"
        )
    if trust.remaining_uses is not None:
        raise Forbidden(
            f'Field "remaining_uses" is set to {trust.remaining_uses} while it must not be set in order to redelegate '
            "a trust"
        )
    if parent.expires_at_us is not None and (trust.expires_at_us is None or trust.expires_at_us > parent.expires_at_us):
        raise Forbidden("Requested expiration time is more than redelegated trust can provide")
    if not set(trust.role_ids) <= set(parent.role_ids):
        raise Forbidden("Some of requested roles are not in redelegated trust")
    if trust.impersonation and not parent.impersonation:
        raise Forbidden(
            "Impersonation is not allowed because redelegated trust does not specify impersonation. Redelegated trust "
            f"id: {parent.id}"
        )


@IDENTITY.operation("GET", TRUST, rules=(Rule(GET),), target=trust_in_path, facts=trust_facts)
def show_trust(call: Call[Trust, None]) -> dict[str, object]:
    """Show a trust."""
    _refuse_delegated(call)
    return {"trust": _view(call, call.target)}


@IDENTITY.operation("DELETE", TRUST, rules=(Rule(DELETE),), target=stored_trust_in_path, facts=trust_facts, success=204)
def delete_trust(call: Call[Trust, None]) -> None:
    """Delete a trust and those made from it; their tokens end at once."""
    _refuse_delegated(call)
    _delete(call, [call.target.id])


def _delete(call: Call[object, object], ids: list[str]) -> None:
    """Delete trusts and those made from them; their tokens end at once."""
    identity = Identity.of(call)
    t = trusts.c
    ended, waiting = [*ids], ids
    while waiting:
        waiting = [row.id for row in call.tx.all(select(t.id).where(t.redelegated_trust_id.in_(waiting)))]
        ended += waiting
    call.tx.execute(delete(trusts).where(t.id.in_(ended)))
    for identifier in ended:
        identity.end_delegation(call.tx, identifier, "trust")


@IDENTITY.operation("GET", f"{TRUST}/roles", rules=(Rule(LIST_ROLES),), target=trust_in_path, facts=trust_facts)
def list_trust_roles(call: Call[Trust, None]) -> dict[str, object]:
    """List the roles a trust gives."""
    _refuse_delegated(call)
    view = _view(call, call.target)
    return {"roles": view["roles"], "links": view["roles_links"]}


def _role_in_path(call: Call[Trust, object]) -> Role:
    _refuse_delegated(call)
    found = {role.id: role for role in roles_of(call.tx, call.target.role_ids)}
    return known(found.get(call.path["role_id"]), "role", call.path["role_id"])


@IDENTITY.operation(
    "GET", f"{TRUST}/roles/{{role_id}}", rules=(Rule(GET_ROLE),), target=trust_in_path, facts=trust_facts
)
def show_trust_role(call: Call[Trust, None]) -> dict[str, object]:
    """Show a role that a trust gives."""
    return {"role": role_view(call, _role_in_path(call))}
