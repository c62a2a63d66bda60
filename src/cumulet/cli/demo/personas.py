"""The people of the story, made through the Identity API: three in one project, one in another, and an admin."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import httpx

from cumulet.cli.client import Credentials, Persona, log_in


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """`reader`, `member` and `manager` share a project; `stranger` is a member of another one."""

    admin: Persona
    reader: Persona
    member: Persona
    manager: Persona
    stranger: Persona

    @property
    def nobody(self) -> Persona:
        return self.member.without_token()


def make_people(http: httpx.Client, admin: Persona, auth_url: str) -> People:
    """Two projects and four users with random passwords, each with one role."""
    role_ids = {role["name"]: role["id"] for role in admin.get("/identity/v3/roles")["roles"]}
    projects = {
        name: admin.must("POST", "/identity/v3/projects", {"project": {"name": name}})["project"]["id"]
        for name in ("observatory", "neighbours")
    }

    def person(name: str, role: str, project: str) -> Persona:
        password = secrets.token_urlsafe(24)
        user = {"name": name, "password": password, "default_project_id": projects[project]}
        user_id = admin.must("POST", "/identity/v3/users", {"user": user})["user"]["id"]
        grant = f"/identity/v3/projects/{projects[project]}/users/{user_id}/roles/{role_ids[role]}"
        admin.must("PUT", grant)
        return log_in(http, name, Credentials(auth_url=auth_url, user=name, password=password, project=project))

    return People(
        admin=admin,
        reader=person("reader", "reader", "observatory"),
        member=person("member", "member", "observatory"),
        manager=person("manager", "manager", "observatory"),
        stranger=person("stranger", "member", "neighbours"),
    )
