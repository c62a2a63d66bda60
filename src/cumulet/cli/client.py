"""A user's view of a cloud: HTTPS with the cloud's CA, a token, a microversion."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import yaml

MICROVERSION = "2.96"
NOBODY = "nobody"
PAGE = 1000
"""Items asked for at once; a cloud may give fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a person logs in with, to one project."""

    auth_url: str
    user: str
    password: str
    project: str
    user_domain: str = "Default"
    project_domain: str = "Default"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: its status, its text as sent, and its headers."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return httpx.Response(200, text=self.text).json() if self.text else None

    @property
    def message(self) -> str:
        """The message of an error, from any service's error body, as one line."""
        try:
            body = self.json
        except ValueError:
            return self.text.strip()
        return " ".join((_said(body) or self.text).split())


_WORDS = ("message", "detail", "faultstring", "title")
"""Where bodies of errors have their sentence; the first counts."""


def _said(body: object) -> str | None:
    """The sentence in the body of an error, at whatever depth a service, or a balancer before it, has it."""
    if isinstance(body, dict):
        own = (body[word] for word in _WORDS if isinstance(body.get(word), str) and body[word])
        return next(own, None) or next((said for value in body.values() if (said := _said(value))), None)
    if isinstance(body, list):
        return next((said for value in body if (said := _said(value))), None)
    return None


class Unexpected(Exception):
    """The cloud gave an answer that is not expected here. The message names the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """One caller: a name for messages, and a token (or none)."""

    name: str
    http: httpx.Client
    token: str | None
    project_id: str = ""

    def ask(
        self, method: str, path: str, body: object | None = None, *, version: str | None = None, content: bytes = b""
    ) -> Answer:
        """Send one request; any status is returned. `version`: compute microversion, default `MICROVERSION`."""
        headers = {"Accept": "application/json"}
        if self.token is not None:
            headers["X-Auth-Token"] = self.token
        if path.startswith("/compute/"):
            headers["OpenStack-API-Version"] = f"compute {version or MICROVERSION}"
        if path.startswith("/placement/"):
            headers["OpenStack-API-Version"] = "placement 1.39"
        if content:
            response = self.http.request(
                method, path, content=content, headers={**headers, "Content-Type": "application/json"}
            )
        elif body is not None:
            response = self.http.request(method, path, json=body, headers=headers)
        else:
            response = self.http.request(method, path, headers=headers)
        return Answer(response.status_code, response.text, response.headers)

    def must(self, method: str, path: str, body: object | None = None, *, version: str | None = None) -> Any:
        """Send one request that has to succeed. Returns its decoded body."""
        answer = self.ask(method, path, body, version=version)
        if not 200 <= answer.status < 300:
            raise Unexpected(f"{method} {path} as {self.name}: {answer.status} {answer.message}")
        return answer.json

    def get(self, path: str, *, version: str | None = None) -> Any:
        return self.must("GET", path, version=version)

    def every(self, path: str, key: str) -> Iterator[dict[str, Any]]:
        """All items of a list of Compute's, however many pages it has."""
        marker = ""
        while page := self.get(f"{path}{'&' if '?' in path else '?'}limit={PAGE}{marker}")[key]:
            yield from page
            marker = f"&marker={page[-1]['id']}"

    def act(self, server_id: str, action: Mapping[str, object], *, version: str | None = None) -> Answer:
        """Ask for a server action. Any status is returned."""
        return self.ask("POST", f"/compute/v2.1/servers/{server_id}/action", action, version=version)

    def without_token(self) -> Persona:
        return replace(self, name=NOBODY, token=None)


def https(base_url: str, authority: Path | None) -> httpx.Client:
    """A connection pool that trusts only this CA (None: the system's). It ignores proxies in the environment."""
    context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    return httpx.Client(base_url=base_url, verify=context, timeout=60.0, trust_env=False)


def log_in(http: httpx.Client, who: str, credentials: Credentials) -> Persona:
    """A project-scoped token by password."""
    answer = http.post(
        "/identity/v3/auth/tokens",
        json={
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": credentials.user,
                            "domain": {"name": credentials.user_domain},
                            "password": credentials.password,
                        }
                    },
                },
                "scope": {"project": {"name": credentials.project, "domain": {"name": credentials.project_domain}}},
            }
        },
    )
    if answer.status_code != 201:
        said = Answer(answer.status_code, answer.text, answer.headers).message
        raise Unexpected(f"logging in as {credentials.user}: {answer.status_code} {said}")
    return Persona(
        name=who,
        http=http,
        token=answer.headers["X-Subject-Token"],
        project_id=answer.json()["token"]["project"]["id"],
    )


def credentials_of(clouds_file: Path, cloud: str) -> tuple[Credentials, Path | None]:
    """One entry of a clouds.yaml, and the file of the CA it names; None: the system's authorities.

    Raises OSError, and KeyError, TypeError or ValueError where there is no such entry in the file.
    """
    try:
        entry = yaml.safe_load(clouds_file.read_text())["clouds"][cloud]
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    auth = entry["auth"]
    credentials = Credentials(
        auth_url=auth["auth_url"],
        user=auth["username"],
        password=auth["password"],
        project=auth["project_name"],
        user_domain=auth.get("user_domain_name", "Default"),
        project_domain=auth.get("project_domain_name", "Default"),
    )
    return credentials, Path(entry["cacert"]) if entry.get("cacert") else None
