"""A small cloud with one made-up compute service, reached without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cumulet.db.engine import Database
from cumulet.settings import Settings
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from tests.service_alone import cloud_of, persona
from tests.web.widgets import SERVICES

PROJECT = "a" * 32
OTHER_PROJECT = "b" * 32
W = "/compute/v2.1/widgets"
ACTION = f"{W}/w1/action"


CALLERS: Mapping[str, Caller] = {
    "admin": persona("admin manager member reader", PROJECT, user="user-1"),
    "member": persona("member reader", PROJECT, user="user-1"),
    "reader": persona("reader", PROJECT, user="user-1"),
    "nobody": persona("", PROJECT, user="user-1"),
    "other": persona("member reader", OTHER_PROJECT, user="user-1"),
    "system": persona("admin reader", None, user="user-1", system=True),
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        (fault,) = self.json.values()
        text: str = fault["message"]
        return text


@dataclass
class Client:
    """Sends requests straight into the ASGI application; inline, so answers are there when `send` returns."""

    app: App
    token: str | None = "member"
    version: str | None = None
    extra: dict[str, str] = field(default_factory=dict)

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        address: str = "192.0.2.7",
        pieces: list[bytes] | None = None,
        repeated: Sequence[tuple[str, str]] = (),
    ) -> Answer:
        token = self.token if token == "" else token
        sent: dict[str, str] = {"host": "cloud.example:8774", **self.extra}
        if token is not None:
            sent["x-auth-token"] = token
        if self.version is not None:
            sent["openstack-api-version"] = f"compute {self.version}"
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        if data and pieces is None:
            sent |= {"content-type": "application/json", "content-length": str(len(data))}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        for name, _ in repeated:
            sent.pop(name, None)
        return await call(self.app, method, path, pieces or [data], [*sent.items(), *repeated], address)


async def call(
    app: Callable[..., Awaitable[None]],
    method: str,
    path: str,
    pieces: list[bytes],
    headers: Sequence[tuple[str, str]],
    address: str,
) -> Answer:
    out: list[MutableMapping[str, Any]] = []
    left = list(pieces)

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: MutableMapping[str, Any]) -> None:
        out.append(message)

    bare, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": bare,
        "raw_path": bare.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "scheme": "https",
        "client": (address, 50000),
        "server": ("127.0.0.1", 8774),
    }
    await app(scope, receive, send)
    start = out[0]
    return Answer(
        status=start["status"],
        headers=[(name.decode(), value.decode("latin-1")) for name, value in start["headers"]],
        body=b"".join(message.get("body", b"") for message in out[1:]),
    )


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    database = Database("sqlite://", inline=True)
    yield cloud_of(database, Settings(state_dir=tmp_path, database_url="sqlite://"), CALLERS)
    database.close()


@pytest.fixture
def client(cloud: Cloud) -> Client:
    return Client(App(cloud, SERVICES))


def send(client: Client, method: str, path: str, body: Any = None, **more: Any) -> Answer:
    return asyncio.run(client.send(method, path, body, **more))
