"""Identity's tables, its records, and the questions several features ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    text,
    update,
)

from cumulet.clock import iso_us
from cumulet.db.engine import Row, Select, Tx, metadata

RecordT = TypeVar("RecordT")

domains = Table(
    "identity_domains",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("tags", JSON, nullable=False, default=list),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),
    Column("tokens_not_before_us", BigInteger, nullable=False, default=0),
)

projects = Table(
    "identity_projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("domain_id", Text, ForeignKey(domains.c.id), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),
    Column("tokens_not_before_us", BigInteger, nullable=False, default=0),
    Column("parent_id", Text, ForeignKey("identity_projects.id"), index=True),
    UniqueConstraint("domain_id", "name"),
)
"""parent_id: the project above it; NULL where it stands directly in its domain."""

project_tags = Table(
    "identity_project_tags",
    metadata,
    Column("project_id", Text, ForeignKey(projects.c.id, ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
)

users = Table(
    "identity_users",
    metadata,
    Column("id", Text, primary_key=True),
    Column("domain_id", Text, ForeignKey(domains.c.id), nullable=False),
    Column("name", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("password_hash", Text),
    Column("default_project_id", Text, index=True),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),
    Column("tokens_not_before_us", BigInteger, nullable=False, default=0),
    Column("password_expires_at_us", BigInteger),
    Column("last_active_us", BigInteger),
    UniqueConstraint("domain_id", "name"),
)
"""last_active_us: of a day (UTC) the first moment at which its password was right; NULL: not known."""

roles = Table(
    "identity_roles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("domain_id", Text, ForeignKey(domains.c.id), index=True),
    Column("description", Text),
    Column("options", JSON, nullable=False, default=dict),
    Column("extra", JSON, nullable=False, default=dict),
)
# A role without a domain shares one namespace with all such roles; NULLs alone would never collide.
Index("uq_identity_roles_name", roles.c.name, text("coalesce(domain_id, '')"), unique=True)

implied_roles = Table(
    "identity_implied_roles",
    metadata,
    Column("prior_role_id", Text, ForeignKey(roles.c.id, ondelete="CASCADE"), primary_key=True),
    Column("implied_role_id", Text, ForeignKey(roles.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

groups = Table(
    "identity_groups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("domain_id", Text, ForeignKey(domains.c.id), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("extra", JSON, nullable=False, default=dict),
    UniqueConstraint("domain_id", "name"),
)

memberships = Table(
    "identity_memberships",
    metadata,
    Column("user_id", Text, ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("group_id", Text, ForeignKey(groups.c.id, ondelete="CASCADE"), primary_key=True, index=True),
)

assignments = Table(
    "identity_assignments",
    metadata,
    Column("user_id", Text, ForeignKey(users.c.id, ondelete="CASCADE"), index=True),
    Column("group_id", Text, ForeignKey(groups.c.id, ondelete="CASCADE")),
    Column("scope", Text, nullable=False),
    Column("scope_id", Text, nullable=False),
    Column("role_id", Text, ForeignKey(roles.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("inherited", Boolean, nullable=False, default=False),
    Index("ix_identity_assignments_scope", "scope", "scope_id"),
    CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="one_holder"),
)
"""A role of a user or of a group. scope: project | domain | system; scope_id: the project's or domain's id, or ``all``.
`inherited`: it counts on the projects below that place, and not on the place itself."""
Index(
    "uq_identity_assignments",
    text("coalesce(user_id, '')"),
    text("coalesce(group_id, '')"),
    assignments.c.scope,
    assignments.c.scope_id,
    assignments.c.role_id,
    assignments.c.inherited,
    unique=True,
)
Index("ix_identity_assignments_group_id", assignments.c.group_id)

revoked_tokens = Table(
    "identity_revoked_tokens",
    metadata,
    Column("audit_id", Text, primary_key=True),
    Column("expires_at_us", BigInteger, nullable=False, index=True),
    Column("revoked_at_us", BigInteger, nullable=False, server_default="0"),
    Column("kind", Text, nullable=False, server_default="token"),
)
"""What ended early, until no token of it is left. kind: token, or what it was made from: trust, access_token, other."""
MOST_FORGOTTEN = 100

regions = Table(
    "identity_regions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("description", Text, nullable=False, default=""),
    Column("parent_region_id", Text, ForeignKey("identity_regions.id"), index=True),
    Column("extra", JSON, nullable=False, default=dict),
)

services = Table(
    "identity_services",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("name", Text),
    Column("description", Text),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("extra", JSON, nullable=False, default=dict),
)

endpoints = Table(
    "identity_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("service_id", Text, ForeignKey(services.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("interface", Text, nullable=False),
    Column("region_id", Text, ForeignKey(regions.c.id), index=True),
    Column("url", Text, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("extra", JSON, nullable=False, default=dict),
)
"""A `url` that begins with a slash is one of this cloud's own services, below whatever URL the client reached us at."""

generation = Table(
    "identity_generation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("last_revocation_us", BigInteger, nullable=False),
)
"""One row. generation: `Identity.changed` raises it. last_revocation_us: when tokens were last ended all at once."""


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    description: str
    enabled: bool
    tags: list[str]
    options: dict[str, object]
    extra: dict[str, object]
    tokens_not_before_us: int


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    domain_id: str
    name: str
    description: str
    enabled: bool
    options: dict[str, object]
    extra: dict[str, object]
    tokens_not_before_us: int
    parent_id: str | None = None
    """The project above it; None: it stands directly in its domain."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    domain_id: str
    name: str
    enabled: bool
    password_hash: str | None
    default_project_id: str | None
    options: dict[str, object]
    extra: dict[str, object]
    tokens_not_before_us: int
    password_expires_at_us: int | None = None
    last_active_us: int | None = None

    @property
    def password_expires_at(self) -> str | None:
        return iso_us(self.password_expires_at_us) if self.password_expires_at_us is not None else None

    def __repr__(self) -> str:
        return f"User(id={self.id!r})"  # What a log may hold of it: not the hash of the password.


class Role(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    domain_id: str | None
    description: str | None
    options: dict[str, object]
    extra: dict[str, object]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    domain_id: str
    name: str
    description: str | None
    extra: dict[str, object]


def one(tx: Tx, record: type[RecordT], statement: Select) -> RecordT | None:
    row = tx.first(statement)
    return None if row is None else record(**row._mapping)


def many(tx: Tx, record: type[RecordT], statement: Select) -> list[RecordT]:
    return [record(**row._mapping) for row in tx.all(statement)]


def domain_by_id(tx: Tx, domain_id: str) -> Domain | None:
    return one(tx, Domain, select(domains).where(domains.c.id == domain_id))


def domain_by_name(tx: Tx, name: str) -> Domain | None:
    return one(tx, Domain, select(domains).where(domains.c.name == name))


def project_by_id(tx: Tx, project_id: str) -> Project | None:
    return one(tx, Project, select(projects).where(projects.c.id == project_id))


def project_by_name(tx: Tx, domain_id: str, name: str) -> Project | None:
    return one(tx, Project, select(projects).where(projects.c.domain_id == domain_id, projects.c.name == name))


def user_by_id(tx: Tx, user_id: str) -> User | None:
    return one(tx, User, select(users).where(users.c.id == user_id))


def user_by_name(tx: Tx, domain_id: str, name: str) -> User | None:
    return one(tx, User, select(users).where(users.c.domain_id == domain_id, users.c.name == name))


def group_by_id(tx: Tx, group_id: str) -> Group | None:
    return one(tx, Group, select(groups).where(groups.c.id == group_id))


def group_by_name(tx: Tx, domain_id: str, name: str) -> Group | None:
    return one(tx, Group, select(groups).where(groups.c.domain_id == domain_id, groups.c.name == name))


def role_by_id(tx: Tx, role_id: str) -> Role | None:
    return one(tx, Role, select(roles).where(roles.c.id == role_id))


def role_by_name(tx: Tx, name: str, domain_id: str | None = None) -> Role | None:
    r = roles.c
    return one(tx, Role, select(roles).where(r.name == name, r.domain_id == domain_id))  # None becomes IS NULL.


def role_spelled_like(tx: Tx, name: str, domain_id: str | None = None) -> bool:
    """Whether there is a role whose name differs in case at most: policies, as upstream's, do not look at case."""
    r = roles.c
    names = tx.all(select(r.name).where(r.domain_id.is_(None) if domain_id is None else r.domain_id == domain_id))
    return any(row.name.lower() == name.lower() for row in names)


def revoke_tokens(tx: Tx, table: Table, identifier: str, now_us: int) -> int:
    """End all tokens of a user, or for a project or domain, issued so far: until the moment that is answered.

    Time, as tokens and revocations see it, never stands still or goes back, even if the clock does: a revocation is
    later than the one before it, whatever that one was about, and `tokens.issue` makes tokens later than the last one.
    """
    row = _generation_row(tx)
    moment: int = max(now_us, row.last_revocation_us + 1)
    tx.execute(update(generation).values(last_revocation_us=moment))
    tx.execute(update(table).where(table.c.id == identifier).values(tokens_not_before_us=moment))
    return moment


def last_revocation_us(tx: Tx) -> int:
    moment: int | None = tx.scalar(select(generation.c.last_revocation_us))
    return moment or 0


def revoke_token(tx: Tx, audit_id: str, expires_at_us: int, now_us: int, kind: str = "token") -> None:
    """End one token and all made from it; forget `MOST_FORGOTTEN` revocations of tokens that expired by themselves."""
    over = select(revoked_tokens.c.audit_id).where(revoked_tokens.c.expires_at_us <= now_us).limit(MOST_FORGOTTEN)
    tx.execute(delete(revoked_tokens).where(revoked_tokens.c.audit_id.in_(over)))
    if tx.first(select(revoked_tokens).where(revoked_tokens.c.audit_id == audit_id)) is None:
        values = {"audit_id": audit_id, "expires_at_us": expires_at_us, "revoked_at_us": now_us, "kind": kind}
        tx.execute(insert(revoked_tokens).values(**values))


def any_revoked(tx: Tx, audit_ids: Iterable[str]) -> bool:
    return (
        tx.first(select(revoked_tokens.c.audit_id).where(revoked_tokens.c.audit_id.in_(list(audit_ids))).limit(1))
        is not None
    )


class Present(msgspec.Struct, frozen=True):
    """What a token that was examined before is compared with."""

    generation: int
    revoked: bool
    not_before_us: int


_REVOKED = exists().where(revoked_tokens.c.audit_id.in_(bindparam("audit_ids", expanding=True)))
_OF_USERS = users.c.id.in_(bindparam("of_users", expanding=True))
_NOT_BEFORE = select(func.max(users.c.tokens_not_before_us)).where(_OF_USERS).scalar_subquery()
_PRESENT = select(generation.c.generation, _REVOKED.label("revoked"), _NOT_BEFORE.label("not_before_us"))


def present(tx: Tx, user_ids: Sequence[str], audit_ids: Sequence[str]) -> Present:
    """One query; of a user who is gone the generation tells."""
    row = tx.first(_PRESENT, {"of_users": list(user_ids), "audit_ids": list(audit_ids)})
    return Present(0, False, 0) if row is None else Present(row.generation, bool(row.revoked), row.not_before_us or 0)


def read_generation(tx: Tx) -> int:
    value: int | None = tx.scalar(select(generation.c.generation))
    return value or 0


def raise_generation(tx: Tx) -> int:
    """See `Identity.changed`: revocations hold at once in every process by this."""
    raised: int = _generation_row(tx).generation + 1
    tx.execute(update(generation).values(generation=raised))
    return raised


def _generation_row(tx: Tx) -> Row:
    row = tx.first(select(generation))
    if row is None:
        tx.execute(insert(generation).values(id=1, generation=0, last_revocation_us=0))
        row = tx.first(select(generation))
    assert row is not None
    return row
