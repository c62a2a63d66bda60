"""Personas, and new things that they ask for, in the tests of Identity's rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cumulet.identity.store import read_generation
from cumulet.testing import JsonObject
from tests.api.identity.place import SYSTEM, UNSCOPED, Place, Session, project


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

    def credentials(self) -> JsonObject:
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

    def user(self, **attributes: object) -> JsonObject:
        return self.admin.made("user", "users", **{"name": self.name(), "domain_id": "default", **attributes})

    def project(self) -> JsonObject:
        return self.admin.made("project", "projects", name=self.name(), domain_id="default", tags=["blue"])

    def domain(self, **attributes: object) -> JsonObject:
        return self.admin.made("domain", "domains", name=self.name(), **attributes)

    def group(self, **attributes: object) -> JsonObject:
        return self.admin.made("group", "groups", **{"name": self.name(), "domain_id": "default", **attributes})

    def role(self) -> JsonObject:
        return self.admin.made("role", "roles", name=self.name())

    def service(self) -> JsonObject:
        return self.admin.made("service", "services", type=self.name())

    def region(self) -> JsonObject:
        return self.admin.made("region", "regions")

    def endpoint(self) -> JsonObject:
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


def flat(kind: str, thing: Mapping[str, Any]) -> JsonObject:
    return {f"target.{kind}.{name}": value for name, value in thing.items()}


Build = Callable[[World, Persona], Request]
CASES: dict[str, Build] = {}


def case(name: str) -> Callable[[Build], Build]:
    def keep(build: Build) -> Build:
        CASES[name] = build
        return build

    return keep


def own(name: str, persona: Persona) -> JsonObject:
    """What Keystone's lists are judged by: the domain the token is for, if it is for one."""
    return {name: persona.domain_id} if persona.domain_id else {}
