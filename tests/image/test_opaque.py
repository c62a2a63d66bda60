"""Images that no server can be made from: their content is stored and sent as it is, without inspection."""

from __future__ import annotations

import msgspec
import pytest

from cumulet.db.engine import Database
from cumulet.image.attributes import CONTAINER_FORMATS, DISK_FORMATS
from cumulet.image.inspection import OPAQUE_CONTAINERS, OPAQUE_DISK_FORMATS
from cumulet.settings import Settings
from cumulet.testing import Client

from .attack_images import GOOD
from .conftest import DATA, World, make_world

CONTENT = GOOD.build()


@pytest.mark.parametrize("disk_format", OPAQUE_DISK_FORMATS)
def test_what_is_not_bootable_here_is_stored_as_it_is(world: World, disk_format: str) -> None:
    container = disk_format if disk_format in CONTAINER_FORMATS else "bare"
    image = world.active(CONTENT, disk_format=disk_format, container_format=container)
    assert (image["status"], image["size"], image["virtual_size"]) == ("active", len(CONTENT), None)
    assert world.ask("member", "GET", f"/images/{image['id']}/file").content == CONTENT
    became = world.patch(image["id"], {"op": "replace", "path": "/disk_format", "value": "qcow2"})
    assert became.status_code == 403


@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_an_empty_upload_is_a_raw_disk_only(world: World, disk_format: str) -> None:
    image = world.create(disk_format=disk_format)
    answer = world.upload(image["id"], b"")
    shown = world.show(image["id"])
    if disk_format == "raw":
        assert (answer.status_code, shown["status"], shown["size"], shown["virtual_size"]) == (204, "active", 0, 0)
    else:
        assert (answer.status_code, shown["status"]) == (415, "queued")


def test_data_that_is_staged_may_be_as_large_as_a_disk_and_no_larger(database: Database, settings: Settings) -> None:
    world = make_world(database, msgspec.structs.replace(settings, image_virtual_size_limit_gib=0))
    image = world.create()
    answer = world.ask("member", "PUT", f"/images/{image['id']}/stage", content=b"x", headers=DATA)
    assert (answer.status_code, "larger than this cloud takes" in answer.text) == (415, True)
    assert (world.show(image["id"])["status"], world.files()) == ("queued", set())


@pytest.mark.parametrize(
    ("disk_format", "container_format"), [("vmdk", "bare"), ("iso", "bare"), ("raw", "ova"), ("qcow2", "compressed")]
)
def test_no_server_is_made_from_it(member: Client, disk_format: str, container_format: str) -> None:
    formats = {"disk_format": disk_format, "container_format": container_format}
    image_id = member.request("POST", "/image/v2/images", {"name": "x", **formats})["id"]
    headers = {"Content-Type": "application/octet-stream"}
    path = f"/image/v2/images/{image_id}/file"
    assert member.request("PUT", path, content=b"anything", headers=headers).status == 204
    flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
    body = {"name": "s", "imageRef": image_id, "flavorRef": flavor, "networks": "none"}
    refused = member.compute("POST", "/servers", {"server": body})
    assert (refused.status, "unacceptable" in refused.text) == (400, True)


def test_every_format_is_bootable_or_opaque() -> None:
    assert {"raw", "qcow2", *OPAQUE_DISK_FORMATS} == set(DISK_FORMATS)
    assert {"bare", *OPAQUE_CONTAINERS} == set(CONTAINER_FORMATS)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", "text/html"),
        ("application/json", "application/json"),
        ("text/html, application/json", "text/html"),
        ("application/json, text/html;q=0.9", "application/json"),
        ("text/*;q=0.1, application/*", "application/json"),
        ("application/octet-stream", "text/plain"),
        ("application/json;q=0", "text/plain"),
        ("nonsense", "text/plain"),
        ("", "application/json"),
    ],
)
def test_an_error_is_what_the_client_understands(world: World, accept: str, media: str) -> None:
    answer = world.ask("member", "GET", "/images/no<b>thing", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (404, media)
    assert "Failed to find image" in answer.text
    if media == "text/html":
        assert "<b>" not in answer.text
