"""The Image service alone behind the real dispatcher, policy and database. The token's text names the caller."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.testclient import TestClient

from cumulet.conductor.findings import findings
from cumulet.db.engine import Database, metadata, opened
from cumulet.image import metadef_store, store
from cumulet.image.part import IMAGE_PART
from cumulet.settings import Settings
from cumulet.testing import JsonObject
from cumulet.testing.running import in_memory
from cumulet.web.app import App
from cumulet.web.context import Cloud
from tests.service_alone import cloud_of, persona

TABLES = [store.images, store.image_properties, store.image_tags, store.image_members, findings]
TABLES += [metadef_store.namespaces, metadef_store.contents, metadef_store.types]
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
DATA = {"Content-Type": "application/octet-stream"}
UNKNOWN = "11111111-2222-3333-4444-555555555555"
"""The id of no image."""


PERSONAS = {
    "admin": persona("admin manager member reader", "admin-project"),
    "member": persona("member reader", "p1"),
    "reader": persona("reader", "p1"),
    "nobody": persona("something", "p1"),
    "other": persona("member reader", "p2"),
    "other-reader": persona("reader", "p2"),
    "third": persona("member reader", "p3"),
    "system": persona("admin member reader", None, system=True),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """An image service and how to talk to it as somebody."""

    client: TestClient
    cloud: Cloud

    @property
    def store(self) -> Path:
        return self.cloud.state_dir / "images"

    def ask(self, who: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-Auth-Token": who, "Accept": "application/json", **options.pop("headers", {})}
        answer: httpx.Response = self.client.request(method, f"/image/v2{path}", headers=headers, **options)
        return answer

    def create(self, who: str = "member", **body: object) -> JsonObject:
        body = {"name": "image", "disk_format": "raw", "container_format": "bare", **body}
        answer = self.ask(who, "POST", "/images", json=body)
        assert answer.status_code == 201, answer.text
        image: dict[str, object] = answer.json()
        return image

    def upload(self, image_id: str, content: bytes, who: str = "member") -> httpx.Response:
        return self.ask(who, "PUT", f"/images/{image_id}/file", content=content, headers=DATA)

    def active(self, content: bytes = b"data" * 1000, who: str = "member", **body: object) -> JsonObject:
        image = self.create(who, **body)
        answer = self.upload(image["id"], content, who)
        assert answer.status_code == 204, answer.text
        return self.show(image["id"], who)

    def show(self, image_id: str, who: str = "member") -> JsonObject:
        answer = self.ask(who, "GET", f"/images/{image_id}")
        assert answer.status_code == 200, answer.text
        image: dict[str, object] = answer.json()
        return image

    def patch(self, image_id: str, *changes: Mapping[str, object], who: str = "member") -> httpx.Response:
        return self.ask(who, "PATCH", f"/images/{image_id}", json=list(changes), headers=PATCH)

    def files(self) -> set[str]:
        """Every file in the store, half-written ones included."""
        return {str(path.relative_to(self.store)) for path in self.store.rglob("*") if path.is_file()}


@pytest.fixture
def database() -> Iterator[Database]:
    with (
        tempfile.TemporaryDirectory(prefix="cumulet-", dir=in_memory()) as folder,
        opened(f"sqlite:///{folder}/cloud.db") as db,
    ):
        metadata.create_all(db.engine, tables=TABLES)
        yield db


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, database_url="")


@pytest.fixture
def world(database: Database, settings: Settings) -> World:
    return make_world(database, settings)


def make_world(database: Database, settings: Settings) -> World:
    cloud = cloud_of(database, settings, PERSONAS)
    return World(client=TestClient(App(cloud, [IMAGE_PART.service])), cloud=cloud)


@pytest.fixture
def small_world(database: Database, settings: Settings) -> World:
    """Uploads of at most 1 GiB in all, disks of at most 1 GiB."""
    return make_world(
        database,
        msgspec.structs.replace(
            settings, image_size_limit_gib=1, image_virtual_size_limit_gib=1, image_project_quota_gib=1
        ),
    )
