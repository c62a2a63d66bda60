"""/auth: what a token is worth, ending it, and what its bearer may choose as scope."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from cumulet.errors import Forbidden, NotFound
from cumulet.identity import holding, store
from cumulet.identity.api import ADMIN, ADMIN_OR_SYSTEM_READER, ANYWHERE, IDENTITY, collection
from cumulet.identity.catalog import catalog_view
from cumulet.identity.domains import domain_view
from cumulet.identity.projects import project_views
from cumulet.identity.service import Identity
from cumulet.identity.store import Domain, Project
from cumulet.identity.tokens import LiveToken, token_view
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule

CHECK = rule("identity:check_token", f"{ADMIN_OR_SYSTEM_READER} or rule:token_subject", scope=ANYWHERE)
VALIDATE = rule(
    "identity:validate_token", f"{ADMIN_OR_SYSTEM_READER} or rule:service_role or rule:token_subject", scope=ANYWHERE
)
REVOKE = rule("identity:revoke_token", f"{ADMIN} or rule:token_subject", scope=ANYWHERE)
CATALOG = rule("identity:get_auth_catalog", "", scope=())
PROJECTS = rule("identity:get_auth_projects", "", scope=())
DOMAINS = rule("identity:get_auth_domains", "", scope=())
SYSTEM = rule("identity:get_auth_system", "", scope=())

VARY = {"Vary": "X-Auth-Token, X-Subject-Token"}


def _subject_text(call: Call[object, object]) -> str:
    return call.headers.get("x-subject-token") or ""


def subject_token(call: Call[object, object]) -> LiveToken:
    """The token in X-Subject-Token, if it is worth anything. Who holds a token may learn whether it still counts."""
    identity = Identity.of(call)
    live = identity.examine(call.tx, _subject_text(call))
    if live is None:
        raise NotFound("Could not find token.")
    return live


def subject_facts(call: Call[LiveToken, object]) -> Mapping[str, object]:
    return {"target.token.user_id": call.target.user.id, "target.token.user.domain.id": call.target.user.domain_id}


@IDENTITY.operation("GET", "/auth/tokens", rules=(Rule(VALIDATE),), target=subject_token, facts=subject_facts)
def validate_token(call: Call[LiveToken, None]) -> Reply:
    """Show who the token in X-Subject-Token speaks for, and what it may do."""
    catalog = None if "nocatalog" in call.query else catalog_view(call.tx, call.base_url, call.target)
    return Reply(body=token_view(call.target, catalog), headers={"X-Subject-Token": _subject_text(call), **VARY})


@IDENTITY.operation("HEAD", "/auth/tokens", rules=(Rule(CHECK),), target=subject_token, facts=subject_facts)
def check_token(call: Call[LiveToken, None]) -> Reply:
    """Say whether the token in X-Subject-Token still counts."""
    return Reply(headers={"X-Subject-Token": _subject_text(call), **VARY})


@IDENTITY.operation(
    "DELETE", "/auth/tokens", rules=(Rule(REVOKE),), target=subject_token, facts=subject_facts, success=204
)
def revoke_token(call: Call[LiveToken, None]) -> None:
    """End the token in X-Subject-Token, and every token made from it."""
    identity = Identity.of(call)
    identity.end_token(call.tx, call.target.token)


@IDENTITY.operation("GET", "/auth/projects", rules=(Rule(PROJECTS),))
def list_auth_projects(call: Call[None, None]) -> dict[str, object]:
    """List the projects the caller has a role in."""
    return collection(call, "auth/projects", "projects", project_views(call, projects_of(call, call.caller.user_id)))


def projects_of(call: Call[object, object], user_id: str) -> list[Project]:
    """The enabled projects of enabled domains where a user has a role, by name."""
    statement = (
        select(store.projects)
        .join(store.domains, store.domains.c.id == store.projects.c.domain_id)
        .where(holding.projects_of(user_id), store.projects.c.enabled, store.domains.c.enabled)
        .order_by(store.projects.c.name, store.projects.c.id)
    )
    return store.many(call.tx, Project, statement.limit(call.cloud.settings.largest_page))


@IDENTITY.operation("GET", "/auth/domains", rules=(Rule(DOMAINS),))
def list_auth_domains(call: Call[None, None]) -> dict[str, object]:
    """List the domains the caller has a role on."""
    held = select(store.assignments.c.scope_id).where(
        holding.held_by(call.caller.user_id), store.assignments.c.scope == "domain", ~store.assignments.c.inherited
    )
    statement = select(store.domains).where(store.domains.c.id.in_(held), store.domains.c.enabled)
    domains = store.many(
        call.tx, Domain, statement.order_by(store.domains.c.name).limit(call.cloud.settings.largest_page)
    )
    return collection(call, "auth/domains", "domains", (domain_view(call, domain) for domain in domains))


@IDENTITY.operation("GET", "/auth/system", rules=(Rule(SYSTEM),))
def list_auth_system(call: Call[None, None]) -> dict[str, object]:
    """Say whether the caller may have a token for the system."""
    roles = holding.effective_roles(call.tx, call.caller.user_id, "system", "all")
    return {"system": [{"all": True}] if roles else [], "links": {"self": f"{call.service_url}/auth/system"}}


@IDENTITY.operation("GET", "/auth/catalog", rules=(Rule(CATALOG),))
def show_auth_catalog(call: Call[None, None]) -> dict[str, object]:
    """Show the services and endpoints the caller can use."""
    if call.caller.project_id is None:
        raise Forbidden("A project-scoped token is required to produce a service catalog.")
    catalog = catalog_view(call.tx, call.base_url, LiveToken.of(call.caller))
    return {"catalog": catalog, "links": {"self": f"{call.service_url}/auth/catalog"}}
