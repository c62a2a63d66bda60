"""/domains: the namespaces of users and projects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec.structs import asdict
from sqlalchemy import delete, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import Conflict, Forbidden
from cumulet.identity import store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    ANYWHERE,
    IDENTITY,
    NOT_DOMAIN,
    collection,
    known,
    member,
    new_id,
)
from cumulet.identity.credential_store import credentials
from cumulet.identity.immutable import Options, given_extra, refuse_delete_of_immutable, refuse_update_of_immutable
from cumulet.identity.listing import Flag, On, ShortName, filtered, page
from cumulet.identity.service import Identity
from cumulet.identity.store import Domain
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

GET = rule(
    "identity:get_domain",
    f"{ADMIN_OR_SYSTEM_READER} or token.domain.id:%(target.domain.id)s or token.project.domain.id:%(target.domain.id)s",
    scope=ANYWHERE,
)
LIST = rule(
    "identity:list_domains",
    f"{ADMIN_OR_SYSTEM_READER} or (role:reader and domain_id:%(target.domain.id)s)",
    scope=ANYWHERE,
)
CREATE = rule("identity:create_domain", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_domain", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_domain", ADMIN, scope=NOT_DOMAIN)

Name = Annotated[str, Json({"minLength": 1, "maxLength": 64, "pattern": r"\S"})]
Description = Annotated[str | None, Json({"maxLength": 255})]
Tag = Annotated[str, Json({"minLength": 1, "maxLength": 255, "pattern": r"^[^,/]*$", "format": "one line"})]
Tags = Annotated[list[Tag], Json({"maxItems": 80, "uniqueItems": True})]
DomainId = Annotated[str, Json({"pattern": r"^[0-9a-f]{32}$"})]


class NewDomain(Body, extra="allow"):
    name: Name
    description: Description = None
    enabled: bool = True
    tags: Tags | Unset = UNSET
    options: Options | Unset = UNSET
    explicit_domain_id: DomainId | Unset = UNSET


class DomainChanges(Body, extra="allow", min_properties=1):
    name: Name | Unset = UNSET
    description: Description | Unset = UNSET
    enabled: bool | Unset = UNSET
    tags: Tags | Unset = UNSET
    options: Options | Unset = UNSET


def domain_view(call: Call[object, object], domain: Domain) -> dict[str, object]:
    return {
        **domain.extra,
        "id": domain.id,
        "name": domain.name,
        "description": domain.description,
        "enabled": domain.enabled,
        "tags": domain.tags,
        "options": domain.options,
        "links": member(call, "domains", domain.id),
    }


def domain_in_path(call: Call[object, object]) -> Domain | None:
    return store.domain_by_id(call.tx, call.path["domain_id"])


def known_domain_in_path(call: Call[object, object]) -> Domain:
    """The domain in the path, for changes: as upstream, 404 comes before the rules."""
    return known(domain_in_path(call), "domain", call.path["domain_id"])


def domain_facts(call: Call[Domain | None, object]) -> Mapping[str, object]:
    return {"target.domain.id": call.target.id} if call.target else {}


def own_domain_facts(call: Call[object, object]) -> Mapping[str, object]:
    """For lists: with a token for a domain, the rules look at that domain, and nothing else is shown."""
    own = call.caller.domain_id
    return {"target.domain.id": own} if own else {}


class ListDomains(Query):
    name: Annotated[ShortName | Unset, On(store.domains.c.name)] = UNSET
    enabled: Annotated[Flag | Unset, On(store.domains.c.enabled)] = UNSET


@IDENTITY.operation("GET", "/domains", rules=(Rule(LIST),), facts=own_domain_facts, query=ListDomains)
def list_domains(call: Call[None, None]) -> dict[str, object]:
    """List domains."""
    statement = filtered(call, select(store.domains))
    if call.caller.domain_id:
        statement = statement.where(store.domains.c.id == call.caller.domain_id)
    rows, following = page(call, statement, store.domains)
    views = (domain_view(call, Domain(**row._mapping)) for row in rows)
    return collection(call, "domains", "domains", views, next_marker=following)


@IDENTITY.operation("GET", "/domains/{domain_id}", rules=(Rule(GET),), target=domain_in_path, facts=domain_facts)
def show_domain(call: Call[Domain | None, None]) -> dict[str, object]:
    """Show a domain."""
    return {"domain": domain_view(call, known(call.target, "domain", call.path["domain_id"]))}


@IDENTITY.operation("POST", "/domains", rules=(Rule(CREATE),), body=NewDomain, body_key="domain", success=201)
def create_domain(call: Call[None, NewDomain]) -> dict[str, object]:
    """Create a domain."""
    explicit = call.body.explicit_domain_id
    identifier = explicit if isinstance(explicit, str) else new_id(call.cloud.clock)
    return {"domain": domain_view(call, make_domain(call, call.body, identifier))}


def make_domain(call: Call[object, object], body: Any, identifier: str) -> Domain:
    """`body`: of a new domain, or of a new project that acts as one."""
    refuse_taken_name(call.tx, body.name)
    if store.domain_by_id(call.tx, identifier) is not None:
        raise Conflict(
            f"Conflict occurred attempting to store domain - it is not permitted to have two with id {identifier}."
        )
    domain = Domain(
        id=identifier,
        name=body.name,
        description=body.description or "",
        enabled=body.enabled,
        tags=[] if body.tags is UNSET else list(body.tags),
        options={} if body.options is UNSET else body.options,
        extra=given_extra(body),
        tokens_not_before_us=0,
    )
    call.tx.execute(insert(store.domains).values(**asdict(domain)))
    return domain


def refuse_taken_name(tx: Tx, name: str) -> None:
    if store.domain_by_name(tx, name) is not None:
        raise Conflict(
            "Conflict occurred attempting to store domain - "
            f"it is not permitted to have two domains with the name {name}."
        )


@IDENTITY.operation(
    "PATCH",
    "/domains/{domain_id}",
    rules=(Rule(UPDATE),),
    target=known_domain_in_path,
    facts=domain_facts,
    body=DomainChanges,
    body_key="domain",
)
def update_domain(call: Call[Domain, DomainChanges]) -> dict[str, object]:
    """Change a domain. Disabling it ends the tokens of its users and projects at once."""
    return {"domain": domain_view(call, change_domain(call, call.target, call.body))}


def change_domain(call: Call[object, object], domain: Domain, body: Any) -> Domain:
    """`body`: changes of a domain, or of the project it is taken for."""
    refuse_update_of_immutable(domain.options, body.options, "domain", domain.id)
    if isinstance(body.name, str) and body.name != domain.name:
        refuse_taken_name(call.tx, body.name)
    values: dict[str, object] = {
        name: value
        for name in ("name", "description", "enabled", "tags")
        if (value := getattr(body, name)) is not UNSET
    }
    if "description" in values:
        values["description"] = values["description"] or ""
    if body.options is not UNSET:
        values["options"] = {**domain.options, **body.options}
    values["extra"] = {**domain.extra, **given_extra(body)}
    call.tx.execute(update(store.domains).where(store.domains.c.id == domain.id).values(**values))
    if values.get("enabled") is False:
        store.revoke_tokens(call.tx, store.domains, domain.id, call.now_us)
    Identity.of(call).changed(call.tx)
    return known(store.domain_by_id(call.tx, domain.id), "domain", domain.id)


@IDENTITY.operation(
    "DELETE",
    "/domains/{domain_id}",
    rules=(Rule(DELETE),),
    target=known_domain_in_path,
    facts=domain_facts,
    success=204,
)
def delete_domain(call: Call[Domain, None]) -> None:
    """Delete a domain that was disabled before, with its users, projects and roles."""
    drop_domain(call, call.target)


def drop_domain(call: Call[object, object], domain: Domain) -> None:
    refuse_delete_of_immutable(domain.options, "domain", domain.id)
    if domain.enabled:
        raise Forbidden("Cannot delete a domain that is enabled, please disable it first.")
    tx, s = call.tx, store
    own_projects = select(s.projects.c.id).where(s.projects.c.domain_id == domain.id)
    tx.execute(
        delete(s.assignments).where(s.assignments.c.scope == "project", s.assignments.c.scope_id.in_(own_projects))
    )
    tx.execute(delete(s.assignments).where(s.assignments.c.scope == "domain", s.assignments.c.scope_id == domain.id))
    tx.execute(delete(credentials).where(credentials.c.project_id.in_(own_projects)))
    tx.execute(update(s.users).where(s.users.c.default_project_id.in_(own_projects)).values(default_project_id=None))
    for table in (s.users, s.groups, s.projects, s.roles):
        tx.execute(delete(table).where(table.c.domain_id == domain.id))
    tx.execute(delete(s.domains).where(s.domains.c.id == domain.id))
    Identity.of(call).changed(tx)
