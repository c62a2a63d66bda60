"""/users/{user_id}/OS-OAUTH1/access_tokens: the access that a user gave to consumers, and how it is taken back."""

from __future__ import annotations

from sqlalchemy import delete, select

from cumulet.clock import iso_us
from cumulet.identity import store
from cumulet.identity.api import ADMIN, IDENTITY, collection, known, member, refuse_delegated
from cumulet.identity.delegations import roles_of
from cumulet.identity.oauth1_store import AccessToken, access_token_by_id, access_tokens
from cumulet.identity.roles import role_view
from cumulet.identity.service import Identity
from cumulet.identity.store import Role
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LIST = rule("identity:list_access_tokens", ADMIN, scope=("project",))
GET = rule("identity:get_access_token", ADMIN, scope=("project",))
DELETE = rule("identity:delete_access_token", ADMIN, scope=("project",))
LIST_ROLES = rule("identity:list_access_token_roles", ADMIN, scope=("project",))
GET_ROLE = rule("identity:get_access_token_role", ADMIN, scope=("project",))

TOKENS = "/users/{user_id}/OS-OAUTH1/access_tokens"
TOKEN = f"{TOKENS}/{{access_token_id}}"
_DELEGATED = "Cannot manage OAuth access tokens with a token issued via delegation."


def _view(call: Call[object, object], token: AccessToken) -> dict[str, object]:
    path = f"users/{token.user_id}/OS-OAUTH1/access_tokens"
    links = member(call, path, token.id)
    return {
        "id": token.id,
        "authorizing_user_id": token.user_id,
        "project_id": token.project_id,
        "consumer_id": token.consumer_id,
        "expires_at": f"{iso_us(token.expires_at_us)}Z",
        "links": {**links, "roles": f"{links['self']}/roles"},
    }


def _token(call: Call[object, object]) -> AccessToken:
    refuse_delegated(call, _DELEGATED)
    found = access_token_by_id(call.tx, call.path["access_token_id"])
    mine = found is not None and found.user_id == call.path["user_id"]
    return known(found if mine else None, "access token", call.path["access_token_id"])


@IDENTITY.operation("GET", TOKENS, rules=(Rule(LIST),))
def list_access_tokens(call: Call[None, None]) -> dict[str, object]:
    """List a user's access tokens of OAuth 1.0."""
    refuse_delegated(call, _DELEGATED)
    a, user_id = access_tokens.c, call.path["user_id"]
    known(store.user_by_id(call.tx, user_id), "user", user_id)
    statement = select(access_tokens).where(a.user_id == user_id, a.expires_at_us > call.now_us).order_by(a.id)
    views = [_view(call, token) for token in store.many(call.tx, AccessToken, statement)]
    return collection(call, f"users/{user_id}/OS-OAUTH1/access_tokens", "access_tokens", views)


@IDENTITY.operation("GET", TOKEN, rules=(Rule(GET),))
def show_access_token(call: Call[None, None]) -> dict[str, object]:
    """Show an access token, without its secret."""
    return {"access_token": _view(call, _token(call))}


@IDENTITY.operation("DELETE", TOKEN, rules=(Rule(DELETE),), success=204)
def delete_access_token(call: Call[None, None]) -> None:
    """Take back the access that a user gave to a consumer. Tokens made from it end at once."""
    token = _token(call)
    call.tx.execute(delete(access_tokens).where(access_tokens.c.id == token.id))
    Identity.of(call).end_delegation(call.tx, token.id, "access_token")


def _roles(call: Call[object, object]) -> list[Role]:
    return roles_of(call.tx, _token(call).role_ids)


def _role_view(call: Call[object, object], role: Role) -> dict[str, object]:
    return {name: value for name, value in role_view(call, role).items() if name != "description"}


@IDENTITY.operation("GET", f"{TOKEN}/roles", rules=(Rule(LIST_ROLES),))
def list_access_token_roles(call: Call[None, None]) -> dict[str, object]:
    """List the roles an access token gives."""
    path = f"users/{call.path['user_id']}/OS-OAUTH1/access_tokens/{call.path['access_token_id']}/roles"
    return collection(call, path, "roles", [_role_view(call, role) for role in _roles(call)])


@IDENTITY.operation("GET", f"{TOKEN}/roles/{{role_id}}", rules=(Rule(GET_ROLE),))
def show_access_token_role(call: Call[None, None]) -> dict[str, object]:
    """Show a role that an access token gives."""
    found = {role.id: role for role in _roles(call)}
    role = known(found.get(call.path["role_id"]), "role", call.path["role_id"])
    return {"role": _role_view(call, role)}
