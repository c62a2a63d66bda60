"""A cloud to send requests to: where its Compute API is, a token for each persona, and the names of its parts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from tests.conformance.case import PERSONAS

ROLES: Final[Mapping[str, tuple[str, str | None, tuple[str, ...]]]] = {
    "admin": ("A", None, ("admin", "manager", "member", "reader")),
    "manager": ("A", None, ("manager", "member", "reader")),
    "member": ("A", None, ("member", "reader")),
    "reader": ("A", None, ("reader",)),
    "other_member": ("B", None, ("member", "reader")),
    "other_manager": ("B", None, ("manager", "member", "reader")),
    "service": ("A", None, ("service",)),
    "norole": ("A", None, ("some_other_role",)),
    "system_admin": ("", "all", ("admin", "member", "reader")),
    "system_reader": ("", "all", ("reader",)),
}
NETWORK_NAME: Final = "private"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`compute` is the root of the Compute API, without ``/v2.1``. `facts`: values of the placeholders that exist from
    the start, such as ``project:member``, ``user:member``, ``image`` and ``network``."""

    name: str
    client: httpx.Client
    compute: str
    tokens: Mapping[str, str | None]
    facts: Mapping[str, str] = field(default_factory=dict)


class NotOffered(RuntimeError):
    """A set-up request got 501: the cloud says that it does not have this yet."""


def checked(answer: httpx.Response) -> Any:
    """The JSON of a set-up request that must have worked."""
    if answer.status_code == 501:
        raise NotOffered(f"{answer.request.method} {answer.request.url}: {answer.text[:300]}")
    if answer.status_code >= 400:
        raise RuntimeError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}")
    return answer.json() if answer.content else None


def oracle(url: str) -> Target:
    """Real Nova as served by the oracle: its personas, tokens and parts are fixed."""
    client = httpx.Client(timeout=60)
    facts: dict[str, str] = {}
    tokens: dict[str, str | None] = {"none": None, "bad": "not-a-token"}
    for persona in ROLES:
        password = {"user": {"name": persona, "domain": {"id": "default"}, "password": "secret"}}
        body = {"auth": {"identity": {"methods": ["password"], "password": password}}}
        answer = client.post(f"{url}/identity/v3/auth/tokens", json=body)
        token = checked(answer)["token"]
        tokens[persona] = answer.headers["X-Subject-Token"]
        facts[f"user:{persona}"] = token["user"]["id"]
        facts[f"project:{persona}"] = token.get("project", {}).get("id", "none")
    # An image without a property of its own, for the shape of what servers show of it.
    images = checked(client.get(f"{url}/image/v2/images"))["images"]
    facts["image"] = images[1]["id"]
    facts["network"] = checked(client.get(f"{url}/network/v2.0/networks"))["networks"][0]["id"]
    return Target(name="Nova", client=client, compute=url, tokens=tokens, facts=facts)


def cumulet(auth_url: str, *, user: str, password: str, project: str, verify: Any) -> Target:
    """A Cumulet, prepared through its own APIs: two projects, the personas with their roles, a network."""
    root = auth_url.removesuffix("/").removesuffix("/v3").removesuffix("/identity")
    client = httpx.Client(timeout=60, verify=verify)
    people = _People(client, f"{root}/identity/v3")
    people.headers = {"X-Auth-Token": people.token(user, password, {"project": _named(project)}, {"id": "default"})}
    tokens, facts = people.make()
    facts["image"] = _image(client, root, people.headers)
    facts["network"] = _network(client, root, people.headers)
    return Target(name="Cumulet", client=client, compute=f"{root}/compute", tokens=tokens, facts=facts)


def from_clouds_file(path: Path, name: str = "cumulet") -> Target:
    """The Cumulet that a clouds.yaml entry of its administrator describes."""
    entry = yaml.safe_load(path.read_text())["clouds"][name]
    auth = entry["auth"]
    return cumulet(
        auth["auth_url"],
        user=auth["username"],
        password=auth["password"],
        project=auth["project_name"],
        verify=_trust(entry),
    )


def _trust(entry: Mapping[str, Any]) -> Any:
    import ssl

    if not entry.get("cacert"):
        return True
    return ssl.create_default_context(cafile=entry["cacert"])


def _named(name: str) -> dict[str, object]:
    return {"name": name, "domain": {"id": "default"}}


class _People:
    """Makes the personas through Identity v3."""

    def __init__(self, client: httpx.Client, url: str) -> None:
        self.client = client
        self.url = url
        self.headers: dict[str, str] = {}
        self.suffix = secrets.token_hex(4)

    def token(self, user: str, password: str, scope: Mapping[str, object], domain: Mapping[str, object]) -> str:
        who = {"user": {"name": user, "domain": domain, "password": password}}
        body = {"auth": {"identity": {"methods": ["password"], "password": who}, "scope": scope}}
        answer = self.client.post(f"{self.url}/auth/tokens", json=body)
        checked(answer)
        return str(answer.headers["X-Subject-Token"])

    def make(self) -> tuple[dict[str, str | None], dict[str, str]]:
        roles = self.roles()
        projects = {name: self.post("projects", "project", name=f"conformance-{name}-{self.suffix}") for name in "AB"}
        tokens: dict[str, str | None] = {"none": None, "bad": "not-a-token"}
        facts: dict[str, str] = {}
        for persona, (project, system, names) in ROLES.items():
            login, password = f"{persona}-{self.suffix}", secrets.token_urlsafe(24)
            user = self.post("users", "user", name=login, password=password)
            place = "system" if system else f"projects/{projects[project]}"
            for role in names:
                checked(self.client.put(f"{self.url}/{place}/users/{user}/roles/{roles[role]}", headers=self.headers))
            scope = {"system": {"all": True}} if system else {"project": {"id": projects[project]}}
            tokens[persona] = self.token(login, password, scope, {"id": "default"})
            facts[f"user:{persona}"] = user
            facts[f"project:{persona}"] = projects.get(project, "none")
        missing = set(PERSONAS) - set(tokens)
        if missing:
            raise RuntimeError(f"no such personas: {missing}")
        return tokens, facts

    def post(self, path: str, key: str, **attributes: object) -> str:
        body = {key: {"domain_id": "default", **attributes}}
        return str(checked(self.client.post(f"{self.url}/{path}", json=body, headers=self.headers))[key]["id"])

    def roles(self) -> dict[str, str]:
        listed = checked(self.client.get(f"{self.url}/roles", headers=self.headers))["roles"]
        roles = {role["name"]: str(role["id"]) for role in listed}
        if "some_other_role" not in roles:
            body = {"role": {"name": "some_other_role"}}
            made = checked(self.client.post(f"{self.url}/roles", json=body, headers=self.headers))
            roles["some_other_role"] = str(made["role"]["id"])
        return roles


def _image(client: httpx.Client, root: str, headers: Mapping[str, str]) -> str:
    url = f"{root}/image/v2/images"
    images = checked(client.get(url, headers=headers))["images"]
    usable = [image["id"] for image in images if image["status"] == "active" and image["visibility"] == "public"]
    if usable:
        return str(usable[0])
    body = {"name": "conformance", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image = checked(client.post(url, json=body, headers=headers))["id"]
    stream = {**headers, "Content-Type": "application/octet-stream"}
    checked(client.put(f"{url}/{image}/file", content=b"\0" * 65536, headers=stream))
    return str(image)


def _network(client: httpx.Client, root: str, headers: Mapping[str, str]) -> str:
    url = f"{root}/network/v2.0"
    body: dict[str, object] = {"network": {"name": NETWORK_NAME, "shared": True}}
    network = checked(client.post(f"{url}/networks", json=body, headers=headers))["network"]["id"]
    body = {"subnet": {"network_id": network, "ip_version": 4, "cidr": "192.168.1.0/24"}}
    checked(client.post(f"{url}/subnets", json=body, headers=headers))
    return str(network)
