"""Placement alone, behind the real dispatcher, as the stories of the package `openstack-placement` speak to theirs.

The stories ask for paths without a prefix and say who asks in headers, as upstream's faked authentication reads them.
Here a path gets our prefix, the headers become a caller, and answers lose the prefix again. Nothing else is changed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from tests.service_alone import NobodyToWake

from cumulet.clock import SystemClock
from cumulet.db.engine import Database, metadata
from cumulet.fleet.hosts import Hosts
from cumulet.placement import store
from cumulet.placement.part import PLACEMENT_PART
from cumulet.settings import Settings
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from cumulet.web.policy import RULES, Policy

PREFIX = PLACEMENT_PART.service.prefix
TABLES = (
    store.resource_providers,
    store.inventories,
    store.consumers,
    store.allocations,
    store.resource_classes,
    store.traits,
)
BEFORE_SECURE_DEFAULTS = {"placement:reshaper:reshape": "role:admin or role:service"}
"""As upstream's fixtures run with the deprecated defaults beside the new ones, whose one difference this is."""


class StoryTokens:
    """A token here is the JSON of a caller, made of a request's headers by `Stage`."""

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
        said = json.loads(token)
        return Caller(
            user_id=said["user"],
            user_name=said["user"],
            user_domain_id="default",
            roles=frozenset(said["roles"]),
            project_id=said["project"],
            project_domain_id="default" if said["project"] else None,
            system=said["system"],
        )


def _token(headers: Mapping[str, str]) -> str:
    """Upstream's rules: ``user[:project]``, roles in a header of their own, or those of somebody called admin."""
    user, _, project = headers["x-auth-token"].partition(":")
    roles = headers.get("x-roles") or ("admin" if user == "admin" else "")
    system = headers.get("openstack-system-scope") == "all"
    own = None if system else headers.get("x-project-id") or project or user
    said = {"user": user, "project": own, "roles": [r for r in roles.split(",") if r], "system": system}
    return json.dumps(said)


class Stage:
    """One empty Placement at a time, as an ASGI application. `open_policy`: every caller with a token may do all."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: Database | None = None
        self._app: App | None = None

    def start(self, *, open_policy: bool = False, secure: bool = False) -> None:
        self.stop()
        self._folder = tempfile.TemporaryDirectory(prefix="placement-stories-")
        folder = Path(self._folder.name)
        self._database = database = Database(f"sqlite:///{folder}/cloud.db")
        metadata.create_all(database.engine, tables=list(TABLES))
        rules = {} if secure else dict(BEFORE_SECURE_DEFAULTS)
        if open_policy:
            rules = {name: "@" for name, rule in RULES.items() if not rule.base}
        cloud = Cloud(
            settings=Settings(state_dir=folder, database_url=""),
            db=database,
            clock=SystemClock(),
            state_dir=folder,
            wake=NobodyToWake(),
            hosts=Hosts(),
            identity=StoryTokens(),
            policy=Policy.compile(RULES.values(), rules),
        )
        self._app = App(cloud, [PLACEMENT_PART.service])

    def stop(self) -> None:
        self._app = None
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None, "the stage is empty"
        root = scope["path"] == "/"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        own = [pair for pair in scope["headers"] if pair[0].lower() != b"x-auth-token"]
        if "x-auth-token" in headers:
            own.append((b"x-auth-token", _token(headers).encode()))
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        inner = {
            **scope,
            "path": PREFIX if root else f"{PREFIX}{scope['path']}",
            "raw_path": PREFIX.encode() if root else PREFIX.encode() + raw,
            "headers": own,
        }
        begun: Message = {}
        body = bytearray()

        async def keep(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            told = bytes(body).replace(f'"{PREFIX}/'.encode(), b'"/')
            begun["headers"] = [_bare(name, value, len(told)) for name, value in begun["headers"]]
            await send(begun)
            await send({"type": "http.response.body", "body": told})

        await self._app(inner, receive, keep)


def _bare(name: bytes, value: bytes, length: int) -> tuple[bytes, bytes]:
    if name.lower() == b"location":
        return name, value.replace(f"{PREFIX}/".encode(), b"/", 1)
    if name.lower() == b"content-length":
        return name, str(length).encode()
    return name, value


class Setting:
    """What fixtures set up, asked of the service's own API."""

    def __init__(self, stage: Stage) -> None:
        self._client = TestClient(stage)

    def ask(self, method: str, path: str, body: object = None, *, version: str = "1.39") -> httpx.Response:
        headers = {"X-Auth-Token": "admin", "Content-Type": "application/json"}
        headers["OpenStack-API-Version"] = f"placement {version}"
        answer: httpx.Response = self._client.request(
            method, path, headers=headers, content=None if body is None else json.dumps(body)
        )
        if answer.status_code >= 300:
            raise RuntimeError(f"a fixture could not be set up: {method} {path}: {answer.status_code} {answer.text}")
        return answer
