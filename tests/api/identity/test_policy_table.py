"""Every operation, asked by every kind of caller, answers as Keystone 30's registered defaults say.

The defaults are recorded in tests/golden/keystone/policies.json and judged by oslo.policy itself, over facts that this
file states for each request; neither the rules nor the facts of the code under test take part in the expectation.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from cumulet.identity.api import IDENTITY
from cumulet.identity.store import read_generation
from cumulet.web.policy import RULES
from tests.api.identity.aws import Signer
from tests.api.identity.oauth import authorization, read_token
from tests.api.identity.place import SYSTEM, UNSCOPED, V3, Place, Session, project

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "keystone" / "policies.json").read_text()
)
BASE_RULES = (
    "admin_required",
    "service_role",
    "service_or_admin",
    "token_subject",
    "domain_managed_target_role",
    "owner",
    "admin_or_owner",
)


def test_our_rules_are_keystones() -> None:
    ours = {name: rule for name, rule in RULES.items() if name.startswith("identity:")}
    assert len(ours) > 60
    for name, rule in ours.items():
        assert (name, " ".join(rule.check.split())) == (name, " ".join(GOLDEN[name]["check"].split()))
        assert (name, sorted(rule.scope)) == (name, GOLDEN[name]["scope"])
    for name in BASE_RULES:
        assert RULES[f"identity/{name}"].check == GOLDEN[name]["check"]


def keystones_enforcer() -> Any:
    conf = cfg.ConfigOpts()
    conf([], project="keystone-golden", default_config_files=[], default_config_dirs=[])
    enforcer = oslo_policy.Enforcer(conf)
    for name, rule in GOLDEN.items():
        enforcer.register_default(oslo_policy.RuleDefault(name, rule["check"], scope_types=rule["scope"] or None))
    return enforcer


@dataclass(frozen=True)
class Persona:
    name: str
    session: Session

    @property
    def user_id(self) -> str:
        identifier: str = self.session.body["user"]["id"]
        return identifier

    @property
    def domain_id(self) -> str | None:
        domain: str | None = self.session.body.get("domain", {}).get("id")
        return domain

    def credentials(self) -> dict[str, Any]:
        token = self.session.body
        return {
            "user_id": self.user_id,
            "roles": [role["name"] for role in token.get("roles", [])],
            "project_id": token.get("project", {}).get("id"),
            "domain_id": self.domain_id,
            "system": "all" if "system" in token else None,
            "system_scope": "all" if "system" in token else None,
            "is_admin": False,
            "token": token,
        }


@dataclass(frozen=True)
class Request:
    path: str
    facts: Mapping[str, Any]
    body: object = None
    subject: str | None = None


class World:
    """Fresh things for every request, all in the domain Default unless said otherwise."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.admin = place.admin()
        self._numbers = itertools.count()
        self.other_domain = self.admin.made("domain", "domains", name="other")["id"]
        self.roles = {r["name"]: r["id"] for r in self.admin.get("/roles").json()["roles"]}

    def generation(self) -> int:
        return self.place.database.read(read_generation)

    def name(self) -> str:
        return f"n{next(self._numbers)}"

    def user(self, **attributes: object) -> dict[str, Any]:
        return self.admin.made("user", "users", **{"name": self.name(), "domain_id": "default", **attributes})

    def project(self) -> dict[str, Any]:
        return self.admin.made("project", "projects", name=self.name(), domain_id="default", tags=["blue"])

    def domain(self, **attributes: object) -> dict[str, Any]:
        return self.admin.made("domain", "domains", name=self.name(), **attributes)

    def group(self, **attributes: object) -> dict[str, Any]:
        return self.admin.made("group", "groups", **{"name": self.name(), "domain_id": "default", **attributes})

    def role(self) -> dict[str, Any]:
        return self.admin.made("role", "roles", name=self.name())

    def service(self) -> dict[str, Any]:
        return self.admin.made("service", "services", type=self.name())

    def region(self) -> dict[str, Any]:
        return self.admin.made("region", "regions")

    def endpoint(self) -> dict[str, Any]:
        service = self.service()["id"]
        return self.admin.made("endpoint", "endpoints", service_id=service, interface="public", url="http://x/")

    def implication(self) -> tuple[str, str]:
        prior, implied = self.role()["id"], self.role()["id"]
        assert self.admin.put(f"/roles/{prior}/implies/{implied}").status_code == 201
        return prior, implied

    def personas(self) -> Iterator[Persona]:
        for role in ("admin", "manager", "member", "reader", "service"):
            yield Persona(f"project {role}", self._with_role(role, "project"))
        for role in ("admin", "manager", "reader"):
            yield Persona(f"domain {role}", self._with_role(role, "domain"))
            yield Persona(f"other domain {role}", self._with_role(role, "domain", self.other_domain))
        for role in ("admin", "manager", "reader"):
            yield Persona(f"system {role}", self._with_role(role, "system"))
        yield Persona("unscoped", self._with_role("member", "unscoped"))

    def _with_role(self, role: str, scope: str, domain: str = "default") -> Session:
        user = self.user(password="their-own", domain_id=domain)
        where: object = UNSCOPED
        if scope == "project":
            own = self.project()
            grant, where = f"/projects/{own['id']}", project(own["name"])
        elif scope == "domain":
            grant, where = f"/domains/{domain}", {"domain": {"id": domain}}
        else:
            grant = "/system"
            where = SYSTEM if scope == "system" else UNSCOPED
        if scope != "unscoped":
            answer = self.admin.put(f"{grant}/users/{user['id']}/roles/{self.roles[role]}")
            assert answer.status_code == 204, answer.text
        return self.place.login({"id": user["id"]}, "their-own", where)


def flat(kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
    return {f"target.{kind}.{name}": value for name, value in thing.items()}


Build = Callable[[World, Persona], Request]
CASES: dict[str, Build] = {}


def case(name: str) -> Callable[[Build], Build]:
    def keep(build: Build) -> Build:
        CASES[name] = build
        return build

    return keep


def own(name: str, persona: Persona) -> dict[str, Any]:
    """What Keystone's lists are judged by: the domain the token is for, if it is for one."""
    return {name: persona.domain_id} if persona.domain_id else {}


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
        path, new = f"/users/{user}/credentials/OS-EC2", {"tenant_id": world.project()["id"]}
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

# -- catalog

CASES["GET /regions"] = lambda w, p: Request("/regions", {})
CASES["GET /regions/{region_id}"] = lambda w, p: Request("/regions/RegionOne", {})
CASES["POST /regions"] = lambda w, p: Request("/regions", {}, {"region": {}})
CASES["PUT /regions/{region_id}"] = lambda w, p: Request(f"/regions/{w.name()}", {}, {"region": {}})
CASES["PATCH /regions/{region_id}"] = lambda w, p: Request(
    f"/regions/{w.region()['id']}", {}, {"region": {"description": "x"}}
)
CASES["DELETE /regions/{region_id}"] = lambda w, p: Request(f"/regions/{w.region()['id']}", {})
CASES["GET /services"] = lambda w, p: Request("/services", {})
CASES["POST /services"] = lambda w, p: Request("/services", {}, {"service": {"type": "x"}})
CASES["GET /services/{service_id}"] = lambda w, p: Request(f"/services/{w.service()['id']}", {})
CASES["PATCH /services/{service_id}"] = lambda w, p: Request(
    f"/services/{w.service()['id']}", {}, {"service": {"name": "x"}}
)
CASES["DELETE /services/{service_id}"] = lambda w, p: Request(f"/services/{w.service()['id']}", {})
CASES["GET /endpoints"] = lambda w, p: Request("/endpoints", {})
CASES["POST /endpoints"] = lambda w, p: Request(
    "/endpoints", {}, {"endpoint": {"service_id": w.service()["id"], "interface": "admin", "url": "http://x/"}}
)
CASES["GET /endpoints/{endpoint_id}"] = lambda w, p: Request(f"/endpoints/{w.endpoint()['id']}", {})
CASES["PATCH /endpoints/{endpoint_id}"] = lambda w, p: Request(
    f"/endpoints/{w.endpoint()['id']}", {}, {"endpoint": {"url": "http://y/"}}
)
CASES["DELETE /endpoints/{endpoint_id}"] = lambda w, p: Request(f"/endpoints/{w.endpoint()['id']}", {})


OF_ANYBODY = (
    "/auth/tokens",
    "/users/{user_id}/application_credentials",
    "/users/{user_id}/access_rules",
    "/users/{user_id}/tokens",
    "/OS-TRUST/trusts",
    "/credentials",
    "/users/{user_id}/credentials",
    "/ec2tokens",
    "/s3tokens",
    "/users/{user_id}/OS-OAUTH1",
)
"""What anybody may change at any time: it has no other tokens examined again."""

# -- what only administrators keep, and readers of the system see: the facts do not matter


def kept(path: str, body: Callable[[World], object] = lambda w: None, *, given: bool = False) -> Build:
    """`path` names fresh things by their kinds; given: with everything that is between them."""

    def build(world: World, persona: Persona) -> Request:
        return Request(path.format_map(Kept(world, given=given)), {}, body(world))

    return build


class Kept(dict[str, str]):
    """Fresh things by the names of path parameters."""

    def __init__(self, world: World, *, given: bool) -> None:
        super().__init__(group="identity", option="list_limit")
        self.world, self.given = world, given

    def __missing__(self, name: str) -> str:
        self[name] = getattr(self, name.removesuffix("_id"))()
        return self[name]

    def _put(self, path: str, body: object = None) -> None:
        if self.given:
            assert self.world.admin.put(path, body).status_code in (201, 204), path

    def policy(self) -> str:
        policy = self.world.admin.made("policy", "policies", type="text", blob="x")["id"]
        base = f"/policies/{policy}/OS-ENDPOINT-POLICY"
        self._put(f"{base}/endpoints/{self['endpoint_id']}")
        self._put(f"{base}/services/{self['service_id']}")
        self._put(f"{base}/services/{self['service_id']}/regions/{self['region_id']}")
        return str(policy)

    def endpoint(self) -> str:
        return str(self.world.endpoint()["id"])

    def service(self) -> str:
        return str(self.world.service()["id"])

    def region(self) -> str:
        return str(self.world.region()["id"])

    def project(self) -> str:
        project = str(self.world.project()["id"])
        self._put(f"/OS-EP-FILTER/projects/{project}/endpoints/{self['endpoint_id']}")
        return project

    def endpoint_group(self) -> str:
        filters = {"interface": "public"}
        made = self.world.admin.made("endpoint_group", "OS-EP-FILTER/endpoint_groups", name="x", filters=filters)
        self._put(f"/OS-EP-FILTER/endpoint_groups/{made['id']}/projects/{self['project_id']}")
        return str(made["id"])

    def domain(self) -> str:
        domain = str(self.world.domain()["id"])
        self._put(f"/domains/{domain}/config", {"config": {"identity": {"list_limit": 5}}})
        return domain

    def registered_limit(self) -> str:
        return str(registered(self.world)["id"])


def registered(world: World) -> dict[str, Any]:
    new = {"service_id": world.service()["id"], "resource_name": world.name(), "default_limit": 5}
    answer = world.admin.post("/registered_limits", {"registered_limits": [new]})
    found: dict[str, Any] = answer.json()["registered_limits"][0]
    return found


def new_limit(world: World) -> dict[str, Any]:
    one = registered(world)
    named = {"service_id": one["service_id"], "resource_name": one["resource_name"]}
    return {"limits": [{**named, "project_id": world.project()["id"], "resource_limit": 3}]}


_EP_GROUPS, _POLICIES, _CONFIG = "/OS-EP-FILTER/endpoint_groups", "/policies", "/domains/{domain_id}/config"
_EP_GROUP, _EP_PROJECT = f"{_EP_GROUPS}/{{endpoint_group_id}}", "/OS-EP-FILTER/projects/{project_id}"
_NEW_GROUP = {"endpoint_group": {"name": "new", "filters": {"interface": "public"}}}
_OPTIONS = {"config": {"identity": {"list_limit": 6}}}
_BODIES: dict[str, object] = {
    f"POST {_EP_GROUPS}": _NEW_GROUP,
    f"PATCH {_EP_GROUP}": {"endpoint_group": {"name": "renamed"}},
    f"POST {_POLICIES}": {"policy": {"type": "text", "blob": "x"}},
    f"PATCH {_POLICIES}/{{policy_id}}": {"policy": {"blob": "y"}},
    "PATCH /registered_limits/{registered_limit_id}": {"registered_limit": {"default_limit": 7}},
    f"PUT {_CONFIG}": _OPTIONS,
    f"PATCH {_CONFIG}": _OPTIONS,
    f"PATCH {_CONFIG}/{{group}}": _OPTIONS,
    f"PATCH {_CONFIG}/{{group}}/{{option}}": {"config": {"list_limit": 6}},
}
_KEPT = ("/OS-EP-FILTER", "/policies", "/registered_limits", "/domains/{domain_id}/config", "/domains/config")
for _operation in IDENTITY.operations:
    _name = f"{_operation.method} {_operation.path}"
    if _operation.path.startswith(_KEPT) and _operation.rules:
        _body = _BODIES.get(_name)
        CASES[_name] = kept(_operation.path, lambda w, body=_body: body, given=_operation.method != "PUT")  # type: ignore[misc]
CASES["GET /endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy"] = lambda w, p: Request(
    f"/endpoints/{with_policy(w)['endpoint_id']}/OS-ENDPOINT-POLICY/policy", {}
)
CASES["POST /registered_limits"] = kept(
    "/registered_limits",
    lambda w: {"registered_limits": [{"service_id": w.service()["id"], "resource_name": w.name(), "default_limit": 5}]},
)


def with_policy(world: World) -> Kept:
    things = Kept(world, given=True)
    assert things["policy_id"]
    return things


def on_limit(body: object = None, *, own: bool = False) -> Build:
    def build(world: World, persona: Persona) -> Request:
        new = new_limit(world)
        if own and "project" in persona.session.body:
            new["limits"][0]["project_id"] = persona.session.body["project"]["id"]
        limit = world.admin.post("/limits", new).json()["limits"][0]
        facts = {**flat("limit", limit), "target.limit.project.domain_id": "default"}
        return Request(f"/limits/{limit['id']}", facts, body)

    return build


# -- OAuth 1.0


def signed(world: World, path: str, token: dict[str, str] | None = None, **more: str) -> dict[str, str]:
    """A token of OAuth that a new consumer (or the token's) asked for."""
    consumer = {"id": token["consumer"], "secret": token["its secret"]} if token else None
    if consumer is None:
        consumer = world.admin.made("consumer", "OS-OAUTH1/consumers")
    header = authorization(f"{V3}{path}", world.place.clock.now_us() / 1e6, world.name(), consumer, token, **more)
    header["Requested-Project-Id"] = world.admin.body["project"]["id"]
    answer = world.place.nobody.request("POST", path, headers=header)
    assert answer.status_code == 201, answer.text
    return {**read_token(answer.text), "consumer": consumer["id"], "its secret": consumer["secret"]}


def on_consumer(body: object = None) -> Build:
    def build(world: World, persona: Persona) -> Request:
        consumer = world.admin.made("consumer", "OS-OAUTH1/consumers")
        return Request(f"/OS-OAUTH1/consumers/{consumer['id']}", {}, body)

    return build


def on_access_token(suffix: str = "") -> Build:
    def build(world: World, persona: Persona) -> Request:
        asked = signed(world, "/OS-OAUTH1/request_token", callback="oob")
        role = world.roles["admin"]
        consent = world.admin.put(f"/OS-OAUTH1/authorize/{asked['id']}", {"roles": [{"id": role}]})
        verifier = consent.json()["token"]["oauth_verifier"]
        access = signed(world, "/OS-OAUTH1/access_token", asked, verifier=verifier)
        user = world.admin.body["user"]["id"]
        return Request(f"/users/{user}/OS-OAUTH1/access_tokens/{access['id']}{suffix.format(role)}", {})

    return build


_ACCESS = "/users/{user_id}/OS-OAUTH1/access_tokens"
CASES["GET /OS-OAUTH1/consumers"] = lambda w, p: Request("/OS-OAUTH1/consumers", {})
CASES["POST /OS-OAUTH1/consumers"] = lambda w, p: Request("/OS-OAUTH1/consumers", {}, {"consumer": {}})
CASES["GET /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer()
CASES["PATCH /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer({"consumer": {"description": "x"}})
CASES["DELETE /OS-OAUTH1/consumers/{consumer_id}"] = on_consumer()
CASES[f"GET {_ACCESS}"] = lambda w, p: Request(f"/users/{p.user_id}/OS-OAUTH1/access_tokens", {})
CASES[f"GET {_ACCESS}/{{access_token_id}}"] = on_access_token()
CASES[f"DELETE {_ACCESS}/{{access_token_id}}"] = on_access_token()
CASES[f"GET {_ACCESS}/{{access_token_id}}/roles"] = on_access_token("/roles")
CASES[f"GET {_ACCESS}/{{access_token_id}}/roles/{{role_id}}"] = on_access_token("/roles/{}")
CASES["GET /OS-REVOKE/events"] = lambda w, p: Request("/OS-REVOKE/events", {})

CASES["GET /limits"] = lambda w, p: Request("/limits", {})
CASES["GET /limits/model"] = lambda w, p: Request("/limits/model", {})
CASES["GET /limits/{limit_id}"] = on_limit()
CASES["GET /limits/{limit_id} (own)"] = on_limit(own=True)
CASES["PATCH /limits/{limit_id}"] = on_limit({"limit": {"resource_limit": 4}})
CASES["DELETE /limits/{limit_id}"] = on_limit()
CASES["POST /limits"] = kept("/limits", new_limit)


def test_every_operation_has_a_case() -> None:
    judged_otherwise = {
        "GET /auth/catalog",  # every token passes its rule, but only one for a project has a catalog
        # It gives the caller's own rights away, which only a caller with a project has.
        "POST /users/{user_id}/application_credentials",
        "POST /OS-TRUST/trusts",
        "PUT /OS-OAUTH1/authorize/{request_token_id}",
        "GET /domains/{domain_id}/config/{group}",  # which rule it is depends on the group
        "GET /domains/{domain_id}/config/{group}/{option}",
        "GET /OS-TRUST/trusts",  # which rule it is depends on the query
    }
    operations = {f"{o.method} {o.path}" for o in IDENTITY.operations if not o.public}
    assert {name.split(" (")[0] for name in CASES} == operations - judged_otherwise


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = Place(tmp_path_factory.mktemp("policy"))
    yield World(place)
    place.close()


@pytest.fixture(scope="module")
def personas(world: World) -> list[Persona]:
    return list(world.personas())


@pytest.fixture(scope="module")
def enforcer() -> Any:
    return keystones_enforcer()


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_persona_gets_what_keystone_would_give(
    name: str, world: World, personas: list[Persona], enforcer: Any
) -> None:
    method, route = name.split(" (")[0].split(" ")
    [operation] = [o for o in IDENTITY.operations if (o.method, o.path) == (method, route)]
    seen: set[bool] = set()
    # Lists and "(own)" are about the caller; all else is about things that serve until somebody may change them.
    of_caller = "(own)" in name or "{" not in route
    request: Request | None = None
    for persona in personas:
        request = CASES[name](world, persona) if request is None or of_caller else request
        allowed = all(enforcer.enforce(r.name, dict(request.facts), persona.credentials()) for r in operation.rules)
        headers = {"X-Subject-Token": request.subject} if request.subject else {}
        before = world.generation()
        answer = persona.session.request(method, request.path, request.body, headers)
        wrote = method not in ("GET", "HEAD") and allowed
        # Remembered tokens stop counting at every write, and at nothing else; the end of a token ends only itself.
        assert world.generation() == before + (wrote and not route.startswith(OF_ANYBODY)), persona.name
        outcome = (persona.name, answer.status_code if answer.status_code != 403 else "refused")
        if allowed:
            assert answer.status_code < 400, (outcome, answer.text)
        else:
            assert outcome == (persona.name, "refused"), answer.text
        seen.add(allowed)
        if wrote:
            request = None
    request = CASES[name](world, personas[0])
    assert world.place.nobody.request(method, request.path, request.body).status_code == 401
    assert True in seen, "nobody may do this: the facts of this case are wrong"
