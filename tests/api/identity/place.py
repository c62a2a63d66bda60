"""A place with nothing but Identity in it: the real dispatcher, a database in memory, a clock the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.identity import bootstrap
from cumulet.identity.api import IDENTITY
from cumulet.identity.service import Identity
from cumulet.part import catalog_of
from cumulet.processes.parts import PARTS
from cumulet.settings import Settings
from cumulet.testing import JsonObject
from cumulet.testing.databases import VARIABLE, own_database
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.policy import Policy

BASE = "https://cloud.test:8774"
V3 = f"{BASE}/identity/v3"


class HandClock:
    """Stands still until moved; ids and bytes come from a seed."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._us = 1_800_000_000_000_000

    def advance(self, seconds: float) -> None:
        self._us += round(seconds * 1e6)

    def now_us(self) -> int:
        return self._us

    def monotonic(self) -> float:
        return self._us / 1e6

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def random(self) -> float:
        return self._random.random()


class NoConductor:
    """Identity starts no long operations."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        raise AssertionError(operation_id)


@dataclass(frozen=True)
class Session:
    """Somebody with a token (or none), who makes requests."""

    place: Place
    token: str | None
    body: Mapping[str, Any]
    """What the token said when it was made."""

    def request(self, method: str, path: str, json: object = None, headers: Mapping[str, str] = {}) -> httpx.Response:
        sent = dict(headers)
        if self.token is not None:
            sent.setdefault("X-Auth-Token", self.token)
        return self.place.send(method, path, json, sent)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path: str, json: object) -> httpx.Response:
        return self.request("POST", path, json)

    def patch(self, path: str, json: object) -> httpx.Response:
        return self.request("PATCH", path, json)

    def put(self, path: str, json: object = None) -> httpx.Response:
        return self.request("PUT", path, json)

    def delete(self, path: str, headers: Mapping[str, str] = {}) -> httpx.Response:
        return self.request("DELETE", path, headers=headers)

    def made(self, kind: str, collection: str, **attributes: object) -> JsonObject:
        """Create something that must succeed."""
        answer = self.post(f"/{collection}", {kind: attributes})
        assert answer.status_code == 201, answer.text
        found: JsonObject = answer.json()[kind]
        return found

    def id_of(self, collection: str, name: str) -> str:
        [found] = self.get(f"/{collection}?name={name}").json()[collection]
        identifier: str = found["id"]
        return identifier

    def still_counts(self) -> bool:
        answer = self.get("/auth/projects")
        assert answer.status_code in (200, 401), answer.text
        return answer.status_code == 200


class Place:
    """Identity behind its API."""

    def __init__(self, folder: Path, database_url: str = "sqlite://", *, clock_seed: int = 7, **settings: Any) -> None:
        self.clock = HandClock(clock_seed)
        self._stack = contextlib.ExitStack()
        if database_url == "sqlite://" and VARIABLE in os.environ:
            database_url = self._stack.enter_context(own_database(folder / str(clock_seed), temporary=True))
        self.database = Database(database_url, inline=database_url == "sqlite://")
        schema.prepare(self.database)
        self.settings = Settings(
            **{"state_dir": folder, "database_url": database_url, "argon2_memory_kib": 64, **settings}
        )
        self.folder = folder
        self.identity = Identity(db=self.database, clock=self.clock, settings=self.settings, state_dir=folder)
        self.passwords = bootstrap.prepare(
            self.database, self.identity, bootstrap.begin(self.identity, folder / "clouds.yaml"), catalog_of(PARTS)
        )
        cloud = Cloud(
            settings=self.settings,
            db=self.database,
            clock=self.clock,
            state_dir=folder,
            wake=NoConductor(),
            hosts=Hosts(),
            identity=self.identity,
            policy=Policy.load(),
        )
        self.app = App(cloud, [IDENTITY])
        self._runner = asyncio.Runner()
        self._transport = httpx.ASGITransport(self.app)
        self._client = httpx.AsyncClient(transport=self._transport, verify=False)
        self.address = "192.0.2.1"

    def send(self, method: str, path: str, json: object, headers: Mapping[str, str]) -> httpx.Response:
        self._transport.client = (self.address, 1)
        arguments: JsonObject = {} if json is None else {"json": json}
        url = path if path.startswith("http") else V3 + path
        return self._runner.run(self._client.request(method, url, headers=dict(headers), **arguments))

    @property
    def nobody(self) -> Session:
        return Session(self, None, {})

    def authenticate(self, auth: Mapping[str, Any]) -> httpx.Response:
        return self.nobody.post("/auth/tokens", {"auth": auth})

    def login(self, user: Mapping[str, Any] | str, password: str | None = None, scope: object = None) -> Session:
        """Log in, which must succeed. `user`: a name in Default, or a user reference."""
        answer = self.authenticate(password_auth(user, password or self.passwords.by_user[str(user)], scope))
        assert answer.status_code == 201, answer.text
        return Session(self, answer.headers["x-subject-token"], answer.json()["token"])

    def exchange(self, session: Session, scope: object = None) -> httpx.Response:
        auth: JsonObject = {"identity": {"methods": ["token"], "token": {"id": session.token}}}
        return self.authenticate(auth if scope is None else {**auth, "scope": scope})

    def exchanged(self, session: Session, scope: object = None) -> Session:
        answer = self.exchange(session, scope)
        assert answer.status_code == 201, answer.text
        return Session(self, answer.headers["x-subject-token"], answer.json()["token"])

    def admin(self) -> Session:
        return self.login("admin", scope=project("admin"))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
        self.identity.close()
        self.database.close()
        self._stack.close()


def password_auth(user: Mapping[str, Any] | str, password: str, scope: object = None) -> JsonObject:
    named = {"name": user, "domain": {"id": "default"}} if isinstance(user, str) else dict(user)
    auth: JsonObject = {"identity": {"methods": ["password"], "password": {"user": {**named, "password": password}}}}
    return auth if scope is None else {**auth, "scope": scope}


def project(name: str, domain: str = "default") -> JsonObject:
    return {"project": {"name": name, "domain": {"id": domain}}}


SYSTEM = {"system": {"all": True}}
UNSCOPED: JsonObject = {"unscoped": {}}
