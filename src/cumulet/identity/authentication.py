"""POST /auth/tokens: who somebody is, shown by a password or an earlier token, and what they want to act on."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cumulet.db.engine import Tx
from cumulet.errors import Forbidden, NotFound, NotYet, Unauthorized
from cumulet.identity import store, tokens
from cumulet.identity.api import IDENTITY
from cumulet.identity.catalog import catalog_view
from cumulet.identity.delegations import NO_DELEGATION, Delegation, by_trust
from cumulet.identity.login_methods import (
    UNAUTHENTICATED,
    ApplicationCredentialMethod,
    DomainNamed,
    Identifier,
    ProjectNamed,
    TotpMethod,
    UserNamed,
    application_credential_holder,
    check_named,
    check_named_in_domain,
    expected,
    find_domain,
    password_holder,
    totp_holder,
)
from cumulet.identity.multi_factor import require_factors
from cumulet.identity.oauth1_requests import access_token_holder
from cumulet.identity.service import Identity
from cumulet.identity.store import User
from cumulet.identity.tokens import LONGEST_CHAIN, LiveToken, Refused, ScopeKind, Token
from cumulet.identity.trusted import use_trust
from cumulet.web.operation import Call, Reply
from cumulet.web.schema import UNSET, Body, Json, Key, Unset

NO_SCOPE = "Error authenticating with application credential: Application credentials cannot request a scope."
NOT_YET_METHODS = frozenset({"external", "mapped", "oauth2_credential"})
METHODS = frozenset({"password", "token", "totp", "application_credential", "oauth1"})


class PasswordMethod(Body, extra="allow", secret=True):
    user: UserNamed


class TokenMethod(Body, extra="allow", secret=True):
    id: str


class OAuth1Method(Body, extra="allow"):
    """Empty: the consumer's signature is in the Authorization header."""


class Methods(Body, extra="allow", secret=True):
    methods: Annotated[list[Annotated[str, Json({"maxLength": 64})]], Json({"minItems": 1, "maxItems": 8})]
    password: PasswordMethod | Unset = UNSET
    token: TokenMethod | Unset = UNSET
    totp: TotpMethod | Unset = UNSET
    application_credential: ApplicationCredentialMethod | Unset = UNSET
    oauth1: OAuth1Method | Unset = UNSET


class TrustNamed(Body, extra="allow"):
    id: Identifier


class SystemScope(Body, extra="allow"):
    all: bool = True


class ScopeAsked(Body, extra="allow"):
    project: ProjectNamed | Unset = UNSET
    domain: DomainNamed | Unset = UNSET
    system: SystemScope | Unset = UNSET
    unscoped: dict[str, object] | Unset = UNSET
    trust: Annotated[TrustNamed | Unset, Key("OS-TRUST:trust")] = UNSET


class Auth(Body, extra="allow", secret=True):
    identity: Methods
    scope: ScopeAsked | Literal["unscoped"] | Unset = UNSET


class _Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who logs in, and how they have shown it."""

    methods: tuple[str, ...]
    parent: Token | None = None
    user: User | None = None
    """Whose password, code or application credential it is; None where only a token was shown."""
    by: Delegation = NO_DELEGATION
    project_id: str = ""
    """The one project an application credential, or an access token of OAuth 1.0, is for."""

    @property
    def user_id(self) -> str:
        return self.user.id if self.user else self.parent.user_id if self.parent else ""


@IDENTITY.operation("POST", "/auth/tokens", body=Auth, body_key="auth", success=201, public=True)
async def issue_token(call: Call[None, Auth]) -> Reply:
    """Authenticate, and get a token for a project, a domain, the system or none of them."""
    identity = Identity.of(call)
    methods = _methods(call.body.identity)
    _check_scope(call.body)
    login = await _login(call, methods)

    def work(tx: Tx) -> tuple[LiveToken, list[dict[str, object]] | None]:
        live = _issue(tx, identity, call.body, login)
        wanted = "nocatalog" not in call.query and live.token.scope != "unscoped"
        return live, catalog_view(tx, call.base_url, live) if wanted else None

    # A trust may count how often it is used.
    database, scope = call.cloud.db, call.body.scope
    counts = isinstance(scope, ScopeAsked) and scope.trust is not UNSET
    try:
        live, catalog = await (database.write_async(work) if counts else database.read_async(work))
    except Refused as refused:
        raise Unauthorized(UNAUTHENTICATED, private=str(refused)) from None
    call.proved = login.user_id
    headers = {"X-Subject-Token": identity.seal(live.token), "Vary": "X-Auth-Token"}
    return Reply(body=tokens.token_view(live, catalog), status=201, headers=headers)


async def _login(call: Call[None, Auth], methods: tuple[str, ...]) -> _Login:
    asked = call.body.identity
    if "application_credential" in methods:
        if len(methods) > 1 or call.body.scope is not UNSET:
            raise Unauthorized(NO_SCOPE)
        assert isinstance(asked.application_credential, ApplicationCredentialMethod)
        user, credential = await application_credential_holder(call, asked.application_credential)
        by = Delegation(application_credential_id=credential.id)
        return _Login(methods=methods, user=user, by=by, project_id=credential.project_id)
    if "oauth1" in methods:
        if len(methods) > 1:
            raise Unauthorized("An access token of OAuth 1.0 is not combined with other methods.")
        access, user = await access_token_holder(call)
        # Whatever scope was asked for, it is the access token's, as upstream.
        by = Delegation(access_token_id=access.id)
        return _Login(methods=methods, user=user, by=by, project_id=access.project_id)
    parent = await _parent(call, asked.token) if "token" in methods else None
    holder: User | None = None
    if "password" in methods:
        assert isinstance(asked.password, PasswordMethod)
        holder = await password_holder(call, asked.password.user)
        if parent is not None and parent.user_id != holder.id:
            raise Unauthorized(UNAUTHENTICATED, private="the token and the password are two users'")
    if "totp" in methods:
        assert isinstance(asked.totp, TotpMethod)
        second = await totp_holder(call, asked.totp.user)
        if (holder is not None and holder.id != second.id) or (parent is not None and parent.user_id != second.id):
            raise Unauthorized(UNAUTHENTICATED, private="the code and the rest are two users'")
        holder = holder or second
    if parent is not None:
        methods = tuple(dict.fromkeys((*methods, *parent.methods)))
    return _Login(methods=methods, parent=parent, user=holder)


def _methods(asked: Methods) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(asked.methods))
    for method in methods:
        if method in NOT_YET_METHODS:
            raise NotYet(
                f"Authentication by {method} is not available yet; use password, token, totp, oauth1 or "
                "application_credential."
            )
        if method not in METHODS:
            raise Unauthorized("Attempted to authenticate with an unsupported method.")
        if getattr(asked, method) is UNSET:
            raise expected(method, "identity")
    return methods


def _check_scope(auth: Auth) -> None:
    """Refuse a scope that names nothing, or more than one thing, before any password work is done for it."""
    scope = auth.scope
    if isinstance(scope, ScopeAsked):
        asked = (scope.project, scope.domain, scope.system, scope.unscoped, scope.trust)
        if len([one for one in asked if one is not UNSET]) != 1:
            raise expected("exactly one of system, project, domain, OS-TRUST:trust or unscoped", "scope")
        if isinstance(scope.system, SystemScope) and not scope.system.all:
            raise expected("all", "scope/system")
        if isinstance(scope.domain, DomainNamed):
            check_named(scope.domain, "scope/domain")
        if isinstance(scope.project, ProjectNamed):
            check_named_in_domain(scope.project, "scope/project")


async def _parent(call: Call[object, Auth], method: TokenMethod | Unset) -> Token:
    assert isinstance(method, TokenMethod)
    identity = Identity.of(call)
    caller = await identity.authenticate(method.id, "identity", "POST", "/auth/tokens")
    if caller is None:
        raise NotFound("Failed to validate token")
    parent: Token = LiveToken.of(caller).token
    scope = call.body.scope
    if parent.delegated:
        raise Forbidden("Using a delegated token to create another token is not allowed.")
    if parent.of_system and isinstance(scope, ScopeAsked) and (scope.project is not UNSET or scope.domain is not UNSET):
        raise Forbidden("Using a system-scoped token to create a project-scoped or domain-scoped token is not allowed.")
    if len(parent.ancestors) + 1 >= LONGEST_CHAIN:
        raise Forbidden("This token was exchanged too often. Authenticate with a password again.")
    return parent


def _issue(tx: Tx, identity: Identity, auth: Auth, login: _Login) -> LiveToken:
    user, parent, by = login.user, login.parent, login.by
    if parent is not None:
        tokens.examine(tx, parent, identity.clock.now_us())
    now = store.user_by_id(tx, login.user_id)
    if now is None or (user is not None and now.password_hash != user.password_hash):
        raise Refused("the password was changed during the login")
    require_factors(now, login.methods)
    user_id = now.id
    if login.project_id:
        scope, scope_id = _for_project(login.project_id)
    elif isinstance(auth.scope, ScopeAsked) and isinstance(auth.scope.trust, TrustNamed):
        trust = use_trust(tx, auth.scope.trust.id, now.id, identity.clock.now_us())
        scope, scope_id = _for_project(trust.project_id or "")
        by = by_trust(tx, trust)
        user_id = trust.trustor_user_id if trust.impersonation else now.id
    elif auth.scope is UNSET and parent is not None and parent.of_system:
        scope, scope_id = _unscoped()
    else:
        scope, scope_id = _scope(tx, now, auth.scope)
    return tokens.issue(
        tx,
        identity.clock,
        identity.settings,
        user_id=user_id,
        methods=login.methods,
        scope=scope,
        scope_id=scope_id,
        parent=parent,
        by=by,
    )


def _for_project(project_id: str) -> tuple[ScopeKind, str]:
    return "project", project_id


def _scope(tx: Tx, user: User, asked: ScopeAsked | str | Unset) -> tuple[ScopeKind, str]:
    if asked is UNSET:
        return _default_scope(tx, user)
    if isinstance(asked, ScopeAsked):
        if isinstance(asked.system, SystemScope):
            return "system", "all"
        if isinstance(asked.domain, DomainNamed):
            domain = find_domain(tx, asked.domain)
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
        domain = find_domain(tx, named.domain)
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
