"""POST /auth/tokens: who somebody is, shown by a password or an earlier token, and what they want to act on."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec.structs import replace
from sqlalchemy import update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden, NotFound, NotYet, Unauthorized
from cumulet.identity import store, tokens
from cumulet.identity.api import IDENTITY
from cumulet.identity.catalog import catalog_view
from cumulet.identity.passwords import LONGEST_PASSWORD
from cumulet.identity.service import Identity
from cumulet.identity.store import User
from cumulet.identity.tokens import LONGEST_CHAIN, LiveToken, Refused, ScopeKind, Token
from cumulet.web.operation import Call, Reply
from cumulet.web.schema import UNSET, Body, Json, Key, Unset

UNAUTHENTICATED = "The request you have made requires authentication."
"""The one answer to unknown users, wrong passwords, disabled users and scopes out of reach."""

NOT_YET_METHODS = frozenset({"application_credential", "external", "mapped", "oauth1", "oauth2_credential", "totp"})

Identifier = Annotated[str, Json({"maxLength": 255})]


class DomainNamed(Body, extra="allow"):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET


class ProjectNamed(Body, extra="allow"):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    domain: DomainNamed | Unset = UNSET


class UserNamed(Body, extra="allow", secret=True):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    domain: DomainNamed | Unset = UNSET
    password: Annotated[str, Json({"maxLength": LONGEST_PASSWORD})]


class PasswordMethod(Body, extra="allow", secret=True):
    user: UserNamed


class TokenMethod(Body, extra="allow", secret=True):
    id: str


class Methods(Body, extra="allow", secret=True):
    methods: Annotated[list[Annotated[str, Json({"maxLength": 64})]], Json({"minItems": 1, "maxItems": 8})]
    password: PasswordMethod | Unset = UNSET
    token: TokenMethod | Unset = UNSET


class SystemScope(Body, extra="allow"):
    all: bool = True


class ScopeAsked(Body, extra="allow"):
    project: ProjectNamed | Unset = UNSET
    domain: DomainNamed | Unset = UNSET
    system: SystemScope | Unset = UNSET
    unscoped: dict[str, Any] | Unset = UNSET
    trust: Annotated[dict[str, Any] | Unset, Key("OS-TRUST:trust")] = UNSET


class Auth(Body, extra="allow", secret=True):
    identity: Methods
    scope: ScopeAsked | Literal["unscoped"] | Unset = UNSET


@IDENTITY.operation("POST", "/auth/tokens", body=Auth, body_key="auth", success=201, public=True)
async def issue_token(call: Call[None, Auth]) -> Reply:
    """Authenticate, and get a token for a project, a domain, the system or none of them."""
    identity: Identity = call.cloud.identity
    methods = _methods(call.body.identity)
    _check_scope(call.body)
    parent: Token | None = None
    user: User | None = None
    if "token" in methods:
        parent = await _parent(call, call.body.identity.token)
    if "password" in methods:
        assert isinstance(call.body.identity.password, PasswordMethod)
        user = await password_holder(call, call.body.identity.password.user)
        if parent is not None and parent.user_id != user.id:
            raise Unauthorized(UNAUTHENTICATED, private="the token and the password are two users'")
    if parent is not None:
        methods = tuple(dict.fromkeys((*methods, *parent.methods)))

    def work(tx: Tx) -> tuple[LiveToken, list[dict[str, Any]] | None]:
        live = _issue(tx, identity, call.body, methods=methods, parent=parent, user=user)
        wanted = "nocatalog" not in call.query and live.token.scope != "unscoped"
        return live, catalog_view(tx, call.base_url, live) if wanted else None

    try:
        live, catalog = await call.cloud.db.read_async(work)
    except Refused as refused:
        raise Unauthorized(UNAUTHENTICATED, private=str(refused)) from None
    headers = {"X-Subject-Token": identity.seal(live.token), "Vary": "X-Auth-Token"}
    return Reply(body=tokens.token_view(live, catalog), status=201, headers=headers)


def _methods(asked: Methods) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(asked.methods))
    for method in methods:
        if method in NOT_YET_METHODS:
            raise NotYet(f"Authentication by {method} is not available yet; use password or token.")
        if method not in ("password", "token"):
            raise Unauthorized("Attempted to authenticate with an unsupported method.")
        if getattr(asked, method) is UNSET:
            raise _expected(method, "identity")
    return methods


def _expected(attribute: str, target: str) -> BadRequest:
    return BadRequest(f"Expecting to find {attribute} in {target}.")


def _check_scope(auth: Auth) -> None:
    """Refuse a scope that names nothing, or more than one thing, before any password work is done for it."""
    scope = auth.scope
    if isinstance(scope, ScopeAsked):
        if scope.trust is not UNSET:
            raise NotYet("Trusts are not available yet.")
        given = [s for s in (scope.project, scope.domain, scope.system, scope.unscoped) if s is not UNSET]
        if len(given) != 1:
            raise _expected("exactly one of system, project, domain or unscoped", "scope")
        if isinstance(scope.system, SystemScope) and not scope.system.all:
            raise _expected("all", "scope/system")
        if isinstance(scope.domain, DomainNamed):
            _check_named(scope.domain, "scope/domain")
        if isinstance(scope.project, ProjectNamed):
            _check_named_in_domain(scope.project, "scope/project")


def _check_named(named: DomainNamed | ProjectNamed | UserNamed, where: str) -> None:
    if named.id is UNSET and named.name is UNSET:
        raise BadRequest(f"Invalid input for field {where}: id or name must be present.")


def _check_named_in_domain(named: ProjectNamed | UserNamed, where: str) -> None:
    _check_named(named, where)
    if isinstance(named.domain, DomainNamed):
        _check_named(named.domain, f"{where}/domain")
    elif named.id is UNSET:
        raise _expected("domain", where)


async def _parent(call: Call[Any, Auth], method: TokenMethod | Unset) -> Token:
    assert isinstance(method, TokenMethod)
    identity: Identity = call.cloud.identity
    caller = await identity.authenticate(method.id, "identity", "POST", "/auth/tokens")
    if caller is None:
        raise NotFound("Failed to validate token")
    parent: Token = caller.token.token
    scope = call.body.scope
    if parent.of_system and isinstance(scope, ScopeAsked) and (scope.project is not UNSET or scope.domain is not UNSET):
        raise Forbidden("Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.")
    if len(parent.ancestors) + 1 >= LONGEST_CHAIN:
        raise Forbidden("This token was exchanged too often. Authenticate with a password again.")
    return parent


async def password_holder(call: Call[Any, Any], named: UserNamed) -> User:
    """The enabled user whose password this is; 401 otherwise, 429 when tried too often.

    Whether the user exists, is disabled or has another password makes no difference: the same work, the same answer.
    """
    identity: Identity = call.cloud.identity
    _check_named_in_domain(named, "identity/password/user")
    found = await call.cloud.db.read_async(lambda tx: _find_user(tx, named))
    password_hash = found.user.password_hash if found.user else None
    async with identity.logins.attempt(found.counted_as, call.client) as attempt:
        attempt.right = await identity.passwords.matches(password_hash, named.password) and found.enabled
    if found.user is None or not attempt.right:
        known, enabled = found.user is not None, found.enabled
        raise Unauthorized(UNAUTHENTICATED, private=f"login as {found.counted_as}: known {known}, enabled {enabled}")
    return await _at_todays_price(call, found.user, named.password)


async def _at_todays_price(call: Call[Any, Any], user: User, password: str) -> User:
    """Hash the password anew where its hash was made with other settings."""
    passwords = call.cloud.identity.passwords
    if user.password_hash is None or not passwords.outdated(user.password_hash):
        return user
    fresh: str = await passwords.hash(password)

    def work(tx: Tx) -> None:
        u = store.users.c
        tx.execute(
            update(store.users)
            .where(u.id == user.id, u.password_hash == user.password_hash)
            .values(password_hash=fresh)
        )
        call.cloud.identity.changed(tx)

    await call.cloud.db.write_async(work)
    return replace(user, password_hash=fresh)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """Who is logging in, if that is anybody; `enabled`: and their domain; `counted_as`: the limiter's name for them."""

    user: User | None
    enabled: bool
    counted_as: str


def _find_user(tx: Tx, named: UserNamed) -> _Found:
    user: User | None = None
    spelling = ""
    if isinstance(named.id, str):
        user = store.user_by_id(tx, named.id)
        spelling = f"id {named.id}"
    elif isinstance(named.name, str) and isinstance(named.domain, DomainNamed):
        domain = _find_domain(tx, named.domain)
        user = store.user_by_name(tx, domain.id, named.name) if domain else None
        # However the domain is named, attempts on a user that is not there count together, as they do on one that is.
        spelling = f"name {named.name} in {domain.id if domain else (named.domain.id, named.domain.name)}"
    if user is None:
        # Hashed because it is as long as the caller likes.
        nobody = hashlib.sha256(spelling.encode("utf-8", "surrogatepass")).hexdigest()
        return _Found(user=None, enabled=False, counted_as=f"nobody {nobody}")
    domain = store.domain_by_id(tx, user.domain_id)
    return _Found(user=user, enabled=user.enabled and domain is not None and domain.enabled, counted_as=user.id)


def _find_domain(tx: Tx, named: DomainNamed) -> store.Domain | None:
    if isinstance(named.id, str):
        return store.domain_by_id(tx, named.id)
    return store.domain_by_name(tx, named.name) if isinstance(named.name, str) else None


def _issue(
    tx: Tx, identity: Identity, auth: Auth, *, methods: tuple[str, ...], parent: Token | None, user: User | None
) -> LiveToken:
    if parent is not None:
        tokens.examine(tx, parent, identity.clock.now_us())
    now = store.user_by_id(tx, user.id if user else parent.user_id if parent else "")
    if now is None or (user is not None and now.password_hash != user.password_hash):
        raise Refused("the password was changed during the login")
    if auth.scope is UNSET and parent is not None and parent.of_system:
        scope, scope_id = _unscoped()
    else:
        scope, scope_id = _scope(tx, now, auth.scope)
    return tokens.issue(
        tx,
        identity.clock,
        user_id=now.id,
        methods=methods,
        scope=scope,
        scope_id=scope_id,
        life_seconds=identity.settings.token_life_seconds,
        parent=parent,
    )


def _scope(tx: Tx, user: User, asked: ScopeAsked | str | Unset) -> tuple[ScopeKind, str]:
    if asked is UNSET:
        return _default_scope(tx, user)
    if isinstance(asked, ScopeAsked):
        if isinstance(asked.system, SystemScope):
            return "system", "all"
        if isinstance(asked.domain, DomainNamed):
            domain = _find_domain(tx, asked.domain)
            if domain is None:
                raise Refused("no such domain")
            return "domain", domain.id
        if isinstance(asked.project, ProjectNamed):
            return "project", _find_project(tx, asked.project)
    return _unscoped()


def _unscoped() -> tuple[ScopeKind, str]:
    return "unscoped", ""


def _find_project(tx: Tx, named: ProjectNamed) -> str:
    project = None
    if isinstance(named.id, str):
        project = store.project_by_id(tx, named.id)
    elif isinstance(named.name, str) and isinstance(named.domain, DomainNamed):
        domain = _find_domain(tx, named.domain)
        project = store.project_by_name(tx, domain.id, named.name) if domain else None
    if project is None:
        raise Refused("no such project")
    return project.id


def _default_scope(tx: Tx, user: User) -> tuple[ScopeKind, str]:
    """The user's default project where that still works, else no scope."""
    if user.default_project_id is None:
        return _unscoped()
    try:
        tokens.standing(tx, user.id, "project", user.default_project_id)
    except Refused:
        return _unscoped()
    return "project", user.default_project_id
