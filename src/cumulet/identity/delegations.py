"""What lets somebody act with less than a user's rights: application credentials, trusts, access tokens of OAuth 1.0.

A token made from one names it (`Delegation`), and each time the token is examined the delegation is looked at again:
it still has to be there, and gives at most what its user still holds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Integer, Table, Text, UniqueConstraint, select

from cumulet.db.engine import Tx, metadata
from cumulet.identity import holding, store
from cumulet.identity.oauth1_store import AccessToken, access_token_by_id
from cumulet.identity.rule_paths import LONGEST_PATH, AskedPath
from cumulet.identity.store import Project, Role, User

application_credentials = Table(
    "identity_application_credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("secret_hash", Text, nullable=False),
    Column("unrestricted", Boolean, nullable=False),
    Column("expires_at_us", BigInteger),
    Column("role_ids", JSON, nullable=False),
    Column("access_rule_ids", JSON(none_as_null=True)),
    UniqueConstraint("user_id", "name"),
)
"""access_rule_ids: NULL where every request is allowed."""

access_rules = Table(
    "identity_access_rules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False),
    Column("service", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    UniqueConstraint("user_id", "service", "method", "path"),
)

trusts = Table(
    "identity_trusts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("trustor_user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("trustee_user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", Text, ForeignKey(store.projects.c.id, ondelete="CASCADE"), index=True),
    Column("impersonation", Boolean, nullable=False),
    Column("remaining_uses", Integer),
    Column("expires_at_us", BigInteger),
    Column("redelegation_count", Integer, nullable=False),
    Column("redelegated_trust_id", Text, ForeignKey("identity_trusts.id", ondelete="CASCADE"), index=True),
    Column("role_ids", JSON, nullable=False),
)


class ApplicationCredential(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    project_id: str
    name: str
    description: str | None
    secret_hash: str
    unrestricted: bool
    expires_at_us: int | None
    role_ids: list[str]
    access_rule_ids: list[str] | None

    def __repr__(self) -> str:
        return f"ApplicationCredential(id={self.id!r})"  # What a log may hold of it.


class AccessRule(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    service: str
    method: str
    path: str

    def view(self) -> dict[str, str]:
        return {"id": self.id, "service": self.service, "method": self.method, "path": self.path}

    def lets_through(self, service: str, method: str, path: AskedPath) -> bool:
        """Whether it allows a request. The rule's path is the service's own, such as ``/v2.1/servers``, or begins as
        the request's does, ``/compute/v2.1/servers``; ``*`` and ``{name}`` are one part of a path, ``**`` any."""
        return (service, method) == (self.service, self.method) and path.meets(self.path)


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    trustor_user_id: str
    trustee_user_id: str
    project_id: str | None
    impersonation: bool
    remaining_uses: int | None
    expires_at_us: int | None
    redelegation_count: int
    redelegated_trust_id: str | None
    role_ids: list[str]


class Delegation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """What a token was made from, where that gives less than its user has. All fields are empty for other tokens."""

    application_credential_id: str = ""
    trust_id: str = ""
    trustee_user_id: str = ""
    """Who uses the trust; the token's user may be the trustor."""
    credential_id: str = ""
    """An EC2 credential with what it held (`credential_store.id_of_content`)."""
    other_user_ids: tuple[str, ...] = ()
    """Whom the trust rests on, each trustor and trustee of its pedigree."""
    access_token_id: str = ""
    """Of OAuth 1.0."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Whose end ends the token."""
        found = (self.application_credential_id, self.trust_id, self.credential_id, self.access_token_id)
        return tuple(identifier for identifier in found if identifier)


NO_DELEGATION = Delegation()


class Gone(Exception):
    """Why a delegation gives nothing: for the log only."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a delegation gives right now."""

    roles: tuple[Role, ...]
    others: tuple[User, ...] = ()
    """Users beside the token's own whom it rests on."""
    application_credential: ApplicationCredential | None = None
    access_rules: tuple[AccessRule, ...] | None = None
    trust: Trust | None = None
    access_token: AccessToken | None = None


def application_credential_by_id(tx: Tx, identifier: str) -> ApplicationCredential | None:
    c = application_credentials
    return store.one(tx, ApplicationCredential, select(c).where(c.c.id == identifier))


def trust_by_id(tx: Tx, identifier: str) -> Trust | None:
    return store.one(tx, Trust, select(trusts).where(trusts.c.id == identifier))


def rules_of(tx: Tx, credential: ApplicationCredential) -> tuple[AccessRule, ...] | None:
    if credential.access_rule_ids is None:
        return None
    statement = select(access_rules).where(access_rules.c.id.in_(credential.access_rule_ids))
    found = {rule.id: rule for rule in store.many(tx, AccessRule, statement)}
    return tuple(found[identifier] for identifier in credential.access_rule_ids if identifier in found)


def roles_of(tx: Tx, role_ids: list[str]) -> list[Role]:
    """The roles a delegation names that are still there, by their names."""
    r = store.roles.c
    return store.many(tx, Role, select(store.roles).where(r.id.in_(role_ids)).order_by(r.name))


def given_by(tx: Tx, by: Delegation, user: User, project: Project | None) -> Given:
    """What `by` gives its user in a project; `Gone` if nothing."""
    if project is None:
        raise Gone("delegations are for projects")
    if by.trust_id:
        given = _given_by_trust(tx, by, user, project)
    elif by.access_token_id:
        given = _given_by_access_token(tx, by, user, project)
    else:
        given = Given(roles=tuple(holding.effective_roles(tx, user.id, "project", project.id)))
    if not by.application_credential_id:
        return given
    credential = application_credential_by_id(tx, by.application_credential_id)
    if credential is None or (credential.user_id, credential.project_id) != (user.id, project.id):
        raise Gone("the application credential is gone")
    roles = tuple(role for role in given.roles if role.id in credential.role_ids)
    rules = rules_of(tx, credential)
    return msgspec.structs.replace(given, roles=roles, application_credential=credential, access_rules=rules)


def _given_by_trust(tx: Tx, by: Delegation, user: User, project: Project) -> Given:
    trust = trust_by_id(tx, by.trust_id)
    if trust is None or trust.project_id != project.id or trust.trustee_user_id != by.trustee_user_id:
        raise Gone("the trust is gone")
    if user.id != (trust.trustor_user_id if trust.impersonation else trust.trustee_user_id):
        raise Gone("the trust is another user's")
    chain = pedigree(tx, trust)
    others = tuple(_enabled(tx, identifier) for identifier in users_of(chain))
    roles = holding.named(tx, set(trust.role_ids))
    held = {role.id for role in holding.effective_roles(tx, chain[-1].trustor_user_id, "project", project.id)}
    if not roles or not all(role.id in held for role in roles):
        raise Gone("the trustor no longer holds the roles of the trust")
    return Given(roles=tuple(roles), others=others, trust=trust)


def _given_by_access_token(tx: Tx, by: Delegation, user: User, project: Project) -> Given:
    token = access_token_by_id(tx, by.access_token_id)
    if token is None or (token.user_id, token.project_id) != (user.id, project.id):
        raise Gone("the access token is gone")
    held = {role.id for role in holding.effective_roles(tx, user.id, "project", project.id)}
    roles = tuple(role for role in holding.named(tx, set(token.role_ids)) if role.id in held)
    return Given(roles=roles, access_token=token)


def by_trust(tx: Tx, trust: Trust) -> Delegation:
    users = users_of(pedigree(tx, trust))
    return Delegation(trust_id=trust.id, trustee_user_id=trust.trustee_user_id, other_user_ids=users)


def users_of(chain: Iterable[Trust]) -> tuple[str, ...]:
    return tuple(sorted({one for link in chain for one in (link.trustor_user_id, link.trustee_user_id)}))


def pedigree(tx: Tx, trust: Trust) -> list[Trust]:
    """A trust and those it was made from, the first one last."""
    chain = [trust]
    while (parent_id := chain[-1].redelegated_trust_id) is not None:
        parent = trust_by_id(tx, parent_id)
        if parent is None:
            raise Gone("a trust it was made from is gone")
        chain.append(parent)
    return chain


def _enabled(tx: Tx, user_id: str) -> User:
    user = store.user_by_id(tx, user_id)
    domain = store.domain_by_id(tx, user.domain_id) if user is not None else None
    if user is None or domain is None or not user.enabled or not domain.enabled:
        raise Gone("a user the trust rests on is gone or disabled")
    # Tokens of a domain's users end with its: the later of the two counts.
    return msgspec.structs.replace(
        user, tokens_not_before_us=max(user.tokens_not_before_us, domain.tokens_not_before_us)
    )


def until_us(given: Given) -> int | None:
    """When a delegation expires, in microseconds since 1970: the earliest of its limits; None: never."""
    ends = [given.application_credential.expires_at_us] if given.application_credential else []
    ends += [given.trust.expires_at_us] if given.trust else []
    ends += [given.access_token.expires_at_us] if given.access_token else []
    return min((end for end in ends if end is not None), default=None)


def allows(rules: Iterable[AccessRule] | None, service: str, method: str, path: str) -> bool:
    """Whether access rules let a request through. To validate a token is always allowed."""
    if rules is None or (service == "identity" and method == "GET" and path.endswith("/v3/auth/tokens")):
        return True
    if len(path) > LONGEST_PATH or not path.isascii():
        return False
    asked = AskedPath(path)
    return any(rule.lets_through(service, method, asked) for rule in rules)
