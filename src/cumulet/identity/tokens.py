"""What a token says, what it is worth right now, and how both are shown."""

from __future__ import annotations

import base64
from typing import Literal

import msgspec

from cumulet.clock import Clock, iso_us
from cumulet.db.engine import Tx
from cumulet.identity import holding, store
from cumulet.identity.delegations import NO_DELEGATION, Delegation, Given, Gone, given_by, until_us
from cumulet.identity.password_rules import is_idle
from cumulet.identity.store import Domain, Project, Role, User
from cumulet.settings import Settings
from cumulet.web.operation import Caller

ScopeKind = Literal["unscoped", "project", "domain", "system"]
LONGEST_CHAIN = 32
"""How often a token may be exchanged for one made from it; each carries the audit ids of all it was made from."""


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """What is sealed inside a token. It names things and asserts nothing about them: that is looked up each time.

    New fields come last, here and in `Delegation`, and their default is empty: see `packed`.
    """

    user_id: str
    methods: tuple[str, ...]
    scope: ScopeKind
    scope_id: str
    issued_at_us: int
    expires_at_us: int
    audit_id: str
    ancestors: tuple[str, ...] = ()
    """Audit ids of the tokens this one was made from, the first of the chain first."""
    from_system: bool = False
    """Whether one of them was for the system: then it never becomes a token for a project or a domain."""
    by: Delegation = NO_DELEGATION
    """What it was made from, where that limits it."""

    @property
    def delegated(self) -> bool:
        """Whether it was made from something that gives less than its user has: such a token makes no others."""
        return self.by != NO_DELEGATION

    @property
    def subjects(self) -> tuple[str, ...]:
        """Ids whose end ends this token, beside its user's."""
        return (self.audit_id, *self.ancestors, *self.by.ids)

    @property
    def user_ids(self) -> tuple[str, ...]:
        """Users whose tokens' end ends this one."""
        return (self.user_id, *self.by.other_user_ids)

    @property
    def of_system(self) -> bool:
        """Whether it is for the system, or was made from one that is."""
        return self.from_system or self.scope == "system"

    @property
    def audit_ids(self) -> list[str]:
        """As shown: its own, and the first of its chain."""
        return [self.audit_id, *self.ancestors[:1]]


_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Token).decode
_LATER_KIND = b"\xc1"
"""A byte that MessagePack never uses. It stands before a token of a kind that processes of the version before do not
know: they would drop the field and take the token for one that is not delegated. With it they cannot read the token."""


def packed(token: Token) -> bytes:
    """The bytes that are sealed. Empty fields at the end are left out.

    So a process of an earlier version, which refuses fields it does not know, still reads tokens without them. It
    refuses a token that has one: it cannot know how far the field limits the token.
    """
    fields = [_without_empty_end(one) if isinstance(one, list) else one for one in msgspec.to_builtins(token)]
    payload = _ENCODE(_without_empty_end(fields))
    return _LATER_KIND + payload if token.by.access_token_id else payload


def _without_empty_end(fields: list[object]) -> list[object]:
    end = len(fields)
    while end and not fields[end - 1]:
        end -= 1
    return fields[:end]


def unpacked(payload: bytes) -> Token | None:
    """None for what is no token, or one with fields of a later version."""
    try:
        return _DECODE(payload.removeprefix(_LATER_KIND))
    except msgspec.DecodeError:
        return None


def new_audit_id(clock: Clock) -> str:
    return base64.urlsafe_b64encode(clock.token_bytes(16)).rstrip(b"=").decode()


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Who a user is and may be in a scope."""

    user: User
    user_domain: Domain
    project: Project | None = None
    project_domain: Domain | None = None
    domain: Domain | None = None
    roles: tuple[Role, ...] = ()
    given: Given | None = None
    """What the delegation gives, if there is one."""

    def not_before_us(self) -> int:
        """Tokens must be younger than this: the latest revocation of anything they rest on."""
        others = self.given.others if self.given else ()
        subjects = (self.user, self.user_domain, self.project, self.project_domain, self.domain, *others)
        return max(subject.tokens_not_before_us for subject in subjects if subject is not None)


class LiveToken(Standing, frozen=True, kw_only=True):
    """A token found good at one moment, with everything it gives its bearer."""

    token: Token

    @classmethod
    def of(cls, caller: Caller) -> LiveToken:
        """The token that `caller` was made from."""
        assert isinstance(caller.token, cls)
        return caller.token

    def caller(self) -> Caller:
        return Caller(
            user_id=self.user.id,
            user_name=self.user.name,
            user_domain_id=self.user.domain_id,
            roles=frozenset(role.name for role in self.roles),
            project_id=self.project.id if self.project else None,
            project_name=self.project.name if self.project else None,
            project_domain_id=self.project.domain_id if self.project else None,
            domain_id=self.domain.id if self.domain else None,
            system=self.token.scope == "system",
            token_id=self.token.audit_id,
            token=self,
        )


class Refused(Exception):
    """Why a token is worth nothing: for the log only."""


def standing(tx: Tx, user_id: str, scope: ScopeKind, scope_id: str, by: Delegation = NO_DELEGATION) -> Standing:
    """What a user is in a scope; `Refused` unless all of it exists, is enabled, and a role is held."""
    user = store.user_by_id(tx, user_id)
    if user is None or not user.enabled:
        raise Refused("the user is gone or disabled")
    user_domain = _enabled_domain(tx, user.domain_id)
    project = domain = project_domain = None
    if scope == "unscoped" and by == NO_DELEGATION:
        return Standing(user=user, user_domain=user_domain)
    if scope == "project":
        project = store.project_by_id(tx, scope_id)
        if project is None or not project.enabled:
            raise Refused("the project is gone or disabled")
        project_domain = _enabled_domain(tx, project.domain_id)
    elif scope == "domain":
        domain = _enabled_domain(tx, scope_id)
    given: Given | None = None
    if by == NO_DELEGATION:
        roles = tuple(holding.effective_roles(tx, user_id, scope, scope_id))
    else:
        try:
            given = given_by(tx, by, user, project)
        except Gone as gone:
            raise Refused(str(gone)) from None
        roles = given.roles
    if not roles:
        raise Refused("the user has no role there")
    return Standing(
        user=user,
        user_domain=user_domain,
        project=project,
        project_domain=project_domain,
        domain=domain,
        roles=roles,
        given=given,
    )


def _enabled_domain(tx: Tx, domain_id: str) -> Domain:
    domain = store.domain_by_id(tx, domain_id)
    if domain is None or not domain.enabled:
        raise Refused("the domain is gone or disabled")
    return domain


def issue(
    tx: Tx,
    clock: Clock,
    settings: Settings,
    *,
    user_id: str,
    methods: tuple[str, ...],
    scope: ScopeKind,
    scope_id: str,
    parent: Token | None = None,
    by: Delegation = NO_DELEGATION,
) -> LiveToken:
    """A new token, if the user may have it; else `Refused`. It never outlives what it was made from."""
    now = standing(tx, user_id, scope, scope_id, by)
    if any(is_idle(settings, one, clock.now_us()) for one in (now.user, *(now.given.others if now.given else ()))):
        raise Refused("the user, or one that the delegation rests on, has not logged in for long")
    # Later than all that was revoked so far, even if the clock stands still or went back.
    issued = max(clock.now_us(), store.last_revocation_us(tx) + 1)
    # Whole seconds, as upstream's; never past the parent's.
    expires = (issued // 1_000_000 + settings.token_life_seconds) * 1_000_000
    if parent is not None:
        expires = min(expires, parent.expires_at_us)
    if now.given is not None and (until := until_us(now.given)) is not None:
        if until <= clock.now_us():
            raise Refused("the delegation has expired")
        expires = min(expires, until)
    token = Token(
        user_id=user_id,
        methods=methods,
        scope=scope,
        scope_id=scope_id,
        issued_at_us=issued,
        expires_at_us=expires,
        audit_id=new_audit_id(clock),
        ancestors=(*parent.ancestors, parent.audit_id) if parent else (),
        from_system=parent is not None and parent.of_system,
        by=by,
    )
    return _live(token, now)


def examine(tx: Tx, token: Token, now_us: int) -> LiveToken:
    """What `token` is worth now; `Refused` if nothing."""
    if token.expires_at_us <= now_us:
        raise Refused("expired")
    now = standing(tx, token.user_id, token.scope, token.scope_id, token.by)
    if token.issued_at_us <= now.not_before_us():
        raise Refused("revoked with its user, project or domain")
    if store.any_revoked(tx, token.subjects):
        raise Refused("revoked")
    return _live(token, now)


def _live(token: Token, now: Standing) -> LiveToken:
    return LiveToken(token=token, **msgspec.structs.asdict(now))


def token_view(live: LiveToken, catalog: list[dict[str, object]] | None) -> dict[str, object]:
    """The body of GET and POST /auth/tokens."""
    token = live.token
    view: dict[str, object] = {
        "methods": list(token.methods),
        "user": {
            "domain": _reference(live.user_domain),
            "id": live.user.id,
            "name": live.user.name,
            "password_expires_at": live.user.password_expires_at,
        },
        "audit_ids": token.audit_ids,
        "expires_at": f"{iso_us(token.expires_at_us)}Z",
        "issued_at": f"{iso_us(token.issued_at_us)}Z",
    }
    if live.project is not None and live.project_domain is not None:
        view["project"] = {**_reference(live.project), "domain": _reference(live.project_domain)}
        view["is_domain"] = False
    elif live.domain is not None:
        view["domain"] = _reference(live.domain)
    elif token.scope == "system":
        view["system"] = {"all": True}
    if live.given is not None:
        view |= _delegation_view(live.given)
    if token.scope != "unscoped":
        view["roles"] = [_reference(role) for role in live.roles]
        if catalog is not None:
            view["catalog"] = catalog
    return {"token": view}


def _delegation_view(given: Given) -> dict[str, object]:
    view: dict[str, object] = {}
    if (trust := given.trust) is not None:
        view["OS-TRUST:trust"] = {
            "id": trust.id,
            "trustor_user": {"id": trust.trustor_user_id},
            "trustee_user": {"id": trust.trustee_user_id},
            "impersonation": trust.impersonation,
        }
    if (credential := given.application_credential) is not None:
        about: dict[str, object] = {
            "id": credential.id,
            "name": credential.name,
            "restricted": not credential.unrestricted,
        }
        if given.access_rules is not None:
            about["access_rules"] = [rule.view() for rule in given.access_rules]
        view["application_credential"] = about
    if (access := given.access_token) is not None:
        view["OS-OAUTH1"] = {"access_token_id": access.id, "consumer_id": access.consumer_id}
    return view


def _reference(named: Domain | Project | Role) -> dict[str, str]:
    return {"id": named.id, "name": named.name}
