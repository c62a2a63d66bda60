"""The Placement service alone behind the real dispatcher, policy and database; a token is the name of a persona."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from cumulet.db.engine import Database, metadata, opened
from cumulet.placement import store
from cumulet.placement.part import PLACEMENT_PART
from cumulet.settings import Settings
from cumulet.testing import JsonObject
from cumulet.testing.running import in_memory
from cumulet.web.app import App
from cumulet.web.context import Cloud
from tests.service_alone import cloud_of, persona

LATEST = "1.39"
A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
UNKNOWN = "99999999-9999-4999-8999-999999999999"
"""Ids of providers or of consumers."""
TABLES = [
    store.resource_providers,
    store.inventories,
    store.consumers,
    store.allocations,
    store.resource_classes,
    store.traits,
]

PERSONAS = {
    "admin": persona("admin manager member reader", "p0"),
    "service": persona("service", "p0"),
    "manager": persona("manager member reader", "p1"),
    "member": persona("member reader", "p1"),
    "reader": persona("reader", "p1"),
    "system": persona("admin member reader", None, system=True),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A placement service and how to talk to it as somebody."""

    client: TestClient
    cloud: Cloud

    def ask(
        self, method: str, path: str, body: Any = None, *, who: str = "admin", version: str = LATEST
    ) -> httpx.Response:
        headers = {"X-Auth-Token": who, "OpenStack-API-Version": f"placement {version}"}
        options = {} if body is None else {"json": body}
        answer: httpx.Response = self.client.request(method, f"/placement{path}", headers=headers, **options)
        return answer

    def get(self, path: str, *, version: str = LATEST) -> Any:
        answer = self.ask("GET", path, version=version)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def provider(self, name: str, *, parent: str | None = None, **inventory: int) -> str:
        """A provider that has `inventory`; returns its uuid."""
        answer = self.ask("POST", "/resource_providers", {"name": name, "parent_provider_uuid": parent})
        assert answer.status_code == 200, answer.text
        uuid: str = answer.json()["uuid"]
        if inventory:
            wanted = {resource_class: {"total": total} for resource_class, total in inventory.items()}
            body = {"resource_provider_generation": 0, "inventories": wanted}
            answer = self.ask("PUT", f"/resource_providers/{uuid}/inventories", body)
            assert answer.status_code == 200, answer.text
        return uuid

    def generation(self, uuid: str) -> int:
        found: int = self.get(f"/resource_providers/{uuid}")["generation"]
        return found

    def allocate(
        self, consumer: str, provider: str, *, generation: int | None = None, **amounts: int
    ) -> httpx.Response:
        return self.ask("PUT", f"/allocations/{consumer}", allocation(provider, generation, **amounts))


def allocation(provider: str, generation: int | None = None, **amounts: int) -> JsonObject:
    return {
        "allocations": {provider: {"resources": amounts}} if amounts else {},
        "project_id": "p1",
        "user_id": "u1",
        "consumer_generation": generation,
        "consumer_type": "INSTANCE",
    }


@pytest.fixture
def database() -> Iterator[Database]:
    with (
        tempfile.TemporaryDirectory(prefix="cumulet-", dir=in_memory()) as folder,
        opened(f"sqlite:///{folder}/cloud.db") as db,
    ):
        metadata.create_all(db.engine, tables=TABLES)
        yield db


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return make_world(database, tmp_path)


def make_world(database: Database, folder: Path) -> World:
    cloud = cloud_of(database, Settings(state_dir=folder, database_url=""), PERSONAS)
    return World(client=TestClient(App(cloud, [PLACEMENT_PART.service])), cloud=cloud)
