"""A request for each operation on users, projects, roles, groups and delegations, with the facts for its rules."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tests.api.identity.aws import Signer
from tests.api.identity.place import Session, project
from tests.api.identity.policy_world import CASES, Build, Persona, Request, World, case, flat, own

# -- tokens


def subject_request(world: World, path: str) -> Request:
    user = world.user(password="their-own")
    session = world.place.login({"id": user["id"]}, "their-own")
    return Request(path, {"target.token.user_id": user["id"]}, subject=session.token)


for _method in ("GET", "HEAD", "DELETE"):
    CASES[f"{_method} /auth/tokens"] = lambda w, p: subject_request(w, "/auth/tokens")


@case("GET /auth/tokens (own)")
def _(world: World, persona: Persona) -> Request:
    return Request("/auth/tokens", {"target.token.user_id": persona.user_id}, subject=persona.session.token)


CASES["GET /auth/projects"] = lambda w, p: Request("/auth/projects", {})
CASES["GET /auth/domains"] = lambda w, p: Request("/auth/domains", {})
CASES["GET /auth/system"] = lambda w, p: Request("/auth/system", {})

# -- domains

CASES["GET /domains"] = lambda w, p: Request("/domains", own("target.domain.id", p))
CASES["GET /domains/{domain_id}"] = lambda w, p: Request("/domains/default", {"target.domain.id": "default"})
CASES["GET /domains/{domain_id} (other)"] = lambda w, p: Request(
    f"/domains/{w.other_domain}", {"target.domain.id": w.other_domain}
)
CASES["POST /domains"] = lambda w, p: Request("/domains", {}, {"domain": {"name": w.name()}})


@case("PATCH /domains/{domain_id}")
def _(world: World, persona: Persona) -> Request:
    domain = world.domain()
    return Request(f"/domains/{domain['id']}", flat("domain", domain), {"domain": {"description": "x"}})


@case("DELETE /domains/{domain_id}")
def _(world: World, persona: Persona) -> Request:
    domain = world.domain(enabled=False)
    return Request(f"/domains/{domain['id']}", flat("domain", domain))


# -- projects

CASES["GET /projects"] = lambda w, p: Request("/projects", own("target.domain_id", p))


def new_project(domain_id: str | None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        body = {"name": world.name()} | ({"domain_id": domain_id} if domain_id else {})
        return Request("/projects", flat("project", body), {"project": body})

    return build


CASES["POST /projects"] = new_project("default")
CASES["POST /projects (domain left out)"] = new_project(None)


def on_project(path: str, body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        target = world.project()
        return Request(f"/projects/{target['id']}{path}", flat("project", target), body)

    return build


CASES["GET /projects/{project_id}"] = on_project("")
CASES["PATCH /projects/{project_id}"] = on_project("", {"project": {"description": "x"}})
CASES["DELETE /projects/{project_id}"] = on_project("")
CASES["GET /projects/{project_id}/tags"] = on_project("/tags")
CASES["PUT /projects/{project_id}/tags"] = on_project("/tags", {"tags": ["red"]})
CASES["DELETE /projects/{project_id}/tags"] = on_project("/tags")
CASES["GET /projects/{project_id}/tags/{tag}"] = on_project("/tags/blue")
CASES["PUT /projects/{project_id}/tags/{tag}"] = on_project("/tags/red")
CASES["DELETE /projects/{project_id}/tags/{tag}"] = on_project("/tags/blue")


@case("GET /projects/{project_id} (own)")
def _(world: World, persona: Persona) -> Request:
    target = persona.session.body.get("project") or world.project()
    return Request(
        f"/projects/{target['id']}", {"target.project.id": target["id"], "target.project.domain_id": "default"}
    )


# -- users

CASES["GET /users"] = lambda w, p: Request("/users", own("target.domain_id", p))


def new_user(domain_id: str | None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        body = {"name": world.name()} | ({"domain_id": domain_id} if domain_id else {})
        return Request("/users", flat("user", body), {"user": body})

    return build


CASES["POST /users"] = new_user("default")
CASES["POST /users (domain left out)"] = new_user(None)


def on_user(path: str, body: object = None, *, myself: bool = False) -> Build:
    def build(world: World, persona: Persona) -> Request:
        target = world.admin.get(f"/users/{persona.user_id}").json()["user"] if myself else world.user()
        return Request(f"/users/{target['id']}{path}", {"user_id": target["id"], **flat("user", target)}, body)

    return build


CASES["GET /users/{user_id}"] = on_user("")
CASES["PATCH /users/{user_id}"] = on_user("", {"user": {"description": "x"}})
CASES["DELETE /users/{user_id}"] = on_user("")
for _path in ("projects", "groups"):
    CASES[f"GET /users/{{user_id}}/{_path}"] = on_user(f"/{_path}")
    CASES[f"GET /users/{{user_id}}/{_path} (own)"] = on_user(f"/{_path}", myself=True)
CASES["GET /users/{user_id} (own)"] = on_user("", myself=True)
CASES["PATCH /users/{user_id} (own)"] = on_user("", {"user": {"description": "x"}}, myself=True)

CASES["DELETE /users/{user_id}/tokens"] = on_user("/tokens")

# -- roles

CASES["GET /roles"] = lambda w, p: Request("/roles", {})
CASES["POST /roles"] = lambda w, p: Request("/roles", {}, {"role": {"name": w.name()}})


def on_role(body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        target = world.role()
        return Request(f"/roles/{target['id']}", flat("role", target), body)

    return build


CASES["GET /roles/{role_id}"] = on_role()
CASES["PATCH /roles/{role_id}"] = on_role({"role": {"description": "x"}})
CASES["DELETE /roles/{role_id}"] = on_role()
CASES["GET /roles/{role_id} (member)"] = lambda w, p: Request(
    f"/roles/{w.roles['member']}", flat("role", {"name": "member", "domain_id": None})
)
CASES["GET /roles/{prior_role_id}/implies"] = lambda w, p: Request(f"/roles/{w.role()['id']}/implies", {})
for _method in ("GET", "HEAD", "DELETE"):
    CASES[f"{_method} /roles/{{prior_role_id}}/implies/{{implied_role_id}}"] = lambda w, p: Request(
        "/roles/{}/implies/{}".format(*w.implication()), {}
    )
CASES["PUT /roles/{prior_role_id}/implies/{implied_role_id}"] = lambda w, p: Request(
    f"/roles/{w.role()['id']}/implies/{w.role()['id']}", {}
)
CASES["GET /role_inferences"] = lambda w, p: Request("/role_inferences", {})

# -- grants


def on_grant(place: str, *, holder: str, inherited: bool, role: str | None, given: bool) -> Build:
    def build(world: World, persona: Persona) -> Request:
        thing = world.user() if holder == "user" else world.group()
        facts = {**flat(holder, thing), **({"user_id": thing["id"]} if holder == "user" else {})}
        path = f"/{place}"
        if place == "projects":
            target = world.project()
            path, facts = f"/projects/{target['id']}", {**facts, **flat("project", target)}
        elif place == "domains":
            path, facts = "/domains/default", {**facts, "target.domain.id": "default"}
        path = f"{'/OS-INHERIT' if inherited else ''}{path}/{holder}s/{thing['id']}/roles"
        if role is not None:
            role_id = world.roles[role]
            path += f"/{role_id}"
            facts |= {"target.role.id": role_id, "target.role.name": role, "target.role.domain_id": None}
        path += "/inherited_to_projects" if inherited else ""
        if given:
            assert world.admin.put(path).status_code == 204
        return Request(path, facts)

    return build


for _place, _route in (
    ("projects", "/projects/{project_id}"),
    ("domains", "/domains/{domain_id}"),
    ("system", "/system"),
):
    for _holder, _inherited in itertools.product(("user", "group"), (False, True)):
        if _inherited and _place == "system":
            continue
        _before, _after = ("/OS-INHERIT", "/inherited_to_projects") if _inherited else ("", "")
        _grants = f"{_before}{_route}/{_holder}s/{{{_holder}_id}}/roles"
        _on: Callable[..., Build] = functools.partial(on_grant, _place, holder=_holder, inherited=_inherited)
        if not (_inherited and _place == "projects"):
            CASES[f"GET {_grants}{_after}"] = _on(role=None, given=False)
        for _role in ("member", "admin"):
            CASES[f"GET {_grants}/{{role_id}}{_after} ({_role})"] = _on(role=_role, given=True)
            CASES[f"PUT {_grants}/{{role_id}}{_after} ({_role})"] = _on(role=_role, given=False)
            CASES[f"DELETE {_grants}/{{role_id}}{_after} ({_role})"] = _on(role=_role, given=True)

# -- groups

CASES["GET /groups"] = lambda w, p: Request("/groups", own("target.group.domain_id", p))


def new_group(domain_id: str | None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        body = {"name": world.name()} | ({"domain_id": domain_id} if domain_id else {})
        return Request("/groups", flat("group", body), {"group": body})

    return build


CASES["POST /groups"] = new_group("default")
CASES["POST /groups (domain left out)"] = new_group(None)


def on_group(path: str, body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        target = world.group()
        return Request(f"/groups/{target['id']}{path}", flat("group", target), body)

    return build


CASES["GET /groups/{group_id}"] = on_group("")
CASES["PATCH /groups/{group_id}"] = on_group("", {"group": {"description": "x"}})
CASES["DELETE /groups/{group_id}"] = on_group("")
CASES["GET /groups/{group_id}/users"] = on_group("/users")


def on_member(*, inside: bool, of_other_domain: bool = False) -> Build:
    def build(world: World, persona: Persona) -> Request:
        group, user = world.group(), world.user(**({"domain_id": world.other_domain} if of_other_domain else {}))
        path = f"/groups/{group['id']}/users/{user['id']}"
        if inside:
            assert world.admin.put(path).status_code == 204
        return Request(path, {**flat("group", group), **flat("user", user)})

    return build


for _method in ("GET", "PUT", "DELETE"):
    CASES[f"{_method} /groups/{{group_id}}/users/{{user_id}}"] = on_member(inside=_method != "PUT")
    CASES[f"{_method} /groups/{{group_id}}/users/{{user_id}} (other domain)"] = on_member(
        inside=_method != "PUT", of_other_domain=True
    )

CASES["GET /role_assignments"] = lambda w, p: Request("/role_assignments", own("target.domain_id", p))


@case("GET /role_assignments (subtree)")
def _(world: World, persona: Persona) -> Request:
    target = world.project()
    path = f"/role_assignments?include_subtree=1&scope.project.id={target['id']}"
    return Request(path, {"target.domain_id": "default"})


# -- application credentials and trusts: what anybody has, made by their owner


@dataclass(frozen=True)
class Owner:
    """A user with a role in a project."""

    session: Session
    user_id: str
    project_id: str


def an_owner(world: World) -> Owner:
    user, home = world.user(password="their-own"), world.project()
    answer = world.admin.put(f"/projects/{home['id']}/users/{user['id']}/roles/{world.roles['member']}")
    assert answer.status_code == 204
    session = world.place.login({"id": user["id"]}, "their-own", project(home["name"]))
    return Owner(session, user["id"], home["id"])


def on_credential(kind: str, one: str = "") -> Build:
    def build(world: World, persona: Persona) -> Request:
        owner = an_owner(world)
        path = f"/users/{owner.user_id}"
        rule = {"service": "compute", "method": "GET", "path": f"/{world.name()}"}
        body = {"application_credential": {"name": world.name(), "access_rules": [rule]}}
        made = owner.session.post(f"{path}/application_credentials", body).json()["application_credential"]
        if one == "rule":
            assert owner.session.delete(f"{path}/application_credentials/{made['id']}").status_code == 204
        identifier = {"": "", "credential": f"/{made['id']}", "rule": f"/{made['access_rules'][0]['id']}"}[one]
        return Request(f"{path}/{kind}{identifier}", {"user_id": owner.user_id, "target.user.id": owner.user_id})

    return build


_CREDENTIALS = "/users/{user_id}/application_credentials"
CASES[f"GET {_CREDENTIALS}"] = on_credential("application_credentials")
CASES[f"GET {_CREDENTIALS}/{{application_credential_id}}"] = on_credential("application_credentials", "credential")
CASES[f"DELETE {_CREDENTIALS}/{{application_credential_id}}"] = on_credential("application_credentials", "credential")
CASES["GET /users/{user_id}/access_rules"] = on_credential("access_rules")
CASES["GET /users/{user_id}/access_rules (own)"] = lambda w, p: Request(
    f"/users/{p.user_id}/access_rules", {"target.user.id": p.user_id}
)
for _method in ("GET", "DELETE"):
    CASES[f"{_method} /users/{{user_id}}/access_rules/{{access_rule_id}}"] = on_credential("access_rules", "rule")


def on_trust(path: str = "") -> Build:
    def build(world: World, persona: Persona) -> Request:
        owner, trustee = an_owner(world), world.user()["id"]
        trust = {"trustor_user_id": owner.user_id, "trustee_user_id": trustee, "project_id": owner.project_id}
        body = {"trust": {**trust, "impersonation": True, "roles": [{"name": "member"}]}}
        made = owner.session.post("/OS-TRUST/trusts", body).json()["trust"]
        return Request(f"/OS-TRUST/trusts/{made['id']}{path.format(**world.roles)}", flat("trust", made))

    return build


CASES["GET /OS-TRUST/trusts/{trust_id}"] = on_trust()
CASES["DELETE /OS-TRUST/trusts/{trust_id}"] = on_trust()
CASES["GET /OS-TRUST/trusts/{trust_id}/roles"] = on_trust("/roles")
CASES["GET /OS-TRUST/trusts/{trust_id}/roles/{role_id}"] = on_trust("/roles/{member}")

# -- credentials

CASES["GET /credentials"] = lambda w, p: Request(
    "/credentials", {} if "system" in p.session.body else {"target.credential.user_id": p.user_id}
)


def new_credential(*, myself: bool) -> Build:
    def build(world: World, persona: Persona) -> Request:
        body = {"type": "cert", "blob": world.name(), "user_id": persona.user_id if myself else world.user()["id"]}
        return Request("/credentials", flat("credential", body), {"credential": body})

    return build


CASES["POST /credentials"] = new_credential(myself=False)
CASES["POST /credentials (own)"] = new_credential(myself=True)


def on_secret(body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        user = world.user()["id"]
        made = world.admin.made("credential", "credentials", type="cert", blob="x", user_id=user)
        return Request(f"/credentials/{made['id']}", flat("credential", made), body)

    return build


CASES["GET /credentials/{credential_id}"] = on_secret()
CASES["PATCH /credentials/{credential_id}"] = on_secret({"credential": {"blob": "y"}})
CASES["DELETE /credentials/{credential_id}"] = on_secret()


def on_ec2(*, one: bool, body: bool = False, myself: bool = False) -> Build:
    def build(world: World, persona: Persona) -> Request:
        user = persona.user_id if myself else world.user()["id"]
        project = world.project()["id"]
        if myself:  # Nobody keeps a credential for a project where they have no role.
            assert world.admin.put(f"/projects/{project}/users/{user}/roles/{world.roles['reader']}").status_code == 204
        path, new = f"/users/{user}/credentials/OS-EC2", {"tenant_id": project}
        if one:
            path += f"/{world.admin.post(path, new).json()['credential']['access']}"
        return Request(path, {"user_id": user, "target.credential.user_id": user}, new if body else None)

    return build


_EC2 = "/users/{user_id}/credentials/OS-EC2"
for _myself, _label in ((False, ""), (True, " (own)")):
    CASES[f"GET {_EC2}{_label}"] = on_ec2(one=False, myself=_myself)
    CASES[f"POST {_EC2}{_label}"] = on_ec2(one=False, body=True, myself=_myself)
    CASES[f"GET {_EC2}/{{access}}{_label}"] = on_ec2(one=True, myself=_myself)
    CASES[f"DELETE {_EC2}/{{access}}{_label}"] = on_ec2(one=True, myself=_myself)


def on_signed(path: str, example: str) -> Build:
    def build(world: World, persona: Persona) -> Request:
        owner = an_owner(world)
        own_path = f"/users/{owner.user_id}/credentials/OS-EC2"
        made = owner.session.post(own_path, {"tenant_id": owner.project_id}).json()["credential"]
        signed = getattr(Signer(world.place.clock.now_us(), made["access"], made["secret"]), example)()
        return Request(path, {}, {"credentials": signed})

    return build


CASES["POST /ec2tokens"] = on_signed("/ec2tokens", "version_4")
CASES["POST /s3tokens"] = on_signed("/s3tokens", "s3")
