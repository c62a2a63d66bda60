"""Images with the clients people have, unmodified: the `openstack` command and openstacksdk, with real tokens."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import openstack
import pytest
from openstack import exceptions
from openstack.image.v2._proxy import Proxy
from openstack.image.v2.image import Image

from cumulet.testing import Client, TestCloud

CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def sdk(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """openstacksdk's image service, as the user of the project demo."""
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    images = openstack.connect(cloud="demo").image
    assert isinstance(images, Proxy)
    return images


def openstack_command(cloud: TestCloud, *arguments: str) -> str:
    """Run the `openstack` client as the user of the project demo; returns what it printed."""
    command = Path(sys.executable).with_name("openstack")
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml), "OS_CLOUD": "demo"}
    done = subprocess.run(
        [command, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_openstack_command_uploads_changes_and_saves_an_image(cloud: TestCloud, disk: Path, tmp_path: Path) -> None:
    made = openstack_command(
        cloud, "image", "create", "--file", str(disk), "--disk-format", "raw", "--tag", "t", "mine", "-f", "json"
    )
    image = json.loads(made)
    openstack_command(cloud, "image", "set", "--property", "os_distro=debian", "--min-disk", "1", "mine")
    shown = json.loads(openstack_command(cloud, "image", "show", "mine", "-f", "json"))
    assert (shown["id"], shown["status"], shown["size"], shown["min_disk"]) == (image["id"], "active", len(CONTENT), 1)
    assert shown["properties"]["os_hash_value"] == hashlib.sha512(CONTENT).hexdigest()
    assert shown["properties"]["os_distro"] == "debian"
    saved = tmp_path / "saved.raw"
    openstack_command(cloud, "image", "save", "--file", str(saved), "mine")
    assert saved.read_bytes() == CONTENT
    openstack_command(cloud, "image", "delete", "mine")


def test_the_sdk_uploads_finds_changes_and_deletes_an_image(sdk: Proxy, disk: Path) -> None:
    image = sdk.create_image(
        "from-sdk", filename=str(disk), disk_format="raw", container_format="bare", validate_checksum=True
    )
    assert isinstance(image, Image)
    found = sdk.find_image("from-sdk")
    assert found is not None
    assert (found.id, found.status, found.size) == (image.id, "active", len(CONTENT))
    sdk.update_image(image, min_ram=64, os_distro="debian")
    sdk.add_tag(image, "tagged")
    changed = sdk.get_image(image)
    assert (changed.min_ram, changed.tags, changed.os_distro) == (64, ["tagged"], "debian")
    assert sdk.download_image(changed).content == CONTENT
    sdk.deactivate_image(image)
    assert sdk.get_image(image).status == "deactivated"
    sdk.delete_image(image)
    assert sdk.find_image("from-sdk") is None


def test_the_sdk_is_told_why_an_upload_is_refused(sdk: Proxy, disk: Path) -> None:
    with pytest.raises(exceptions.HttpException, match="not qcow2"):
        sdk.create_image("bad", filename=str(disk), disk_format="qcow2", container_format="bare")


def test_the_sdk_pages_through_many_images(sdk: Proxy) -> None:
    made = {sdk.create_image(f"page-{n}", disk_format="raw", container_format="bare").id for n in range(7)}
    listed = [image.id for image in sdk.images(limit=2)]
    assert made <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_clouds_own_image_is_there_for_everybody(admin: Client, reader: Client) -> None:
    listed = reader.request("GET", "/image/v2/images?name=cumulet-tiny")["images"]
    assert [(image["status"], image["visibility"]) for image in listed] == [("active", "public")]
    path = f"/image/v2/images/{listed[0]['id']}"
    assert reader.request("DELETE", path).status == 403
    assert admin.request("GET", path).status == 200


def test_another_projects_image_is_not_there(member: Client, other_member: Client) -> None:
    image = member.request("POST", "/image/v2/images", {"name": "mine", "visibility": "private"})["id"]
    unknown = "11111111-2222-3333-4444-555555555555"
    hidden = other_member.request("GET", f"/image/v2/images/{image}")
    missing = other_member.request("GET", f"/image/v2/images/{unknown}")
    assert (hidden.status, hidden.text.replace(image, unknown)) == (404, missing.text)


def test_a_member_was_made_when_the_image_was_shared(cloud: TestCloud, member: Client, other_member: Client) -> None:
    base = "/image/v2/images"
    image = member.request("POST", base, {"name": "i", "container_format": "bare", "disk_format": "raw"})["id"]
    offered = member.request("POST", f"{base}/{image}/members", {"member": other_member.project_id})
    cloud.clock.advance(60.0)
    path = f"{base}/{image}/members/{other_member.project_id}"
    accepted = other_member.request("PUT", path, {"status": "accepted"})
    assert accepted["created_at"] == offered["created_at"] != accepted["updated_at"]
    assert other_member.request("GET", path).json == accepted.json


def test_there_is_no_cache_to_manage_over_the_api(admin: Client) -> None:
    answer = admin.request("GET", "/image/v2/cache")
    assert answer.status == 404
    assert "Caching via API is not supported at this site." in answer.text


def test_old_clients_change_an_images_properties_through_compute(
    member: Client, reader: Client, other_member: Client
) -> None:
    wanted = {"name": "mine", "visibility": "private", "colour": "red"}
    image = member.request("POST", "/image/v2/images", wanted)["id"]
    path = f"/images/{image}/metadata"
    added = member.compute("POST", path, {"metadata": {"shape": "round"}}, version="2.38")
    assert added["metadata"] == {"colour": "red", "shape": "round"}
    assert member.compute("PUT", path, {"metadata": {"width": "xl"}}, version="2.38")["metadata"] == {"width": "xl"}
    assert member.compute("PUT", f"{path}/width", {"meta": {"width": "s"}}, version="2.38")["meta"] == {"width": "s"}
    assert member.compute("PUT", f"{path}/width", {"meta": {"other": "s"}}, version="2.38").status == 400
    for name in ("os_glance_x", "checksum", "visibility"):
        assert member.compute("POST", path, {"metadata": {name: "public"}}, version="2.38").status == 403
    shown = member.request("GET", f"/image/v2/images/{image}").json
    assert (shown["width"], shown["visibility"], "colour" in shown) == ("s", "private", False)
    assert member.compute("GET", path, version="2.38")["metadata"] == {"width": "s"}
    assert reader.compute("DELETE", f"{path}/width", version="2.38").status == 403
    assert other_member.compute("DELETE", f"{path}/width", version="2.38").status == 404
    assert member.compute("DELETE", f"{path}/width", version="2.38").status == 204
    assert member.compute("DELETE", f"{path}/width", version="2.38").status == 404
    assert member.compute("POST", path, {"metadata": {"a": "b"}}, version="2.39").status == 404
    assert reader.compute("DELETE", f"/images/{image}", version="2.35").status == 403
    assert other_member.compute("DELETE", f"/images/{image}", version="2.35").status == 404
    assert member.compute("DELETE", f"/images/{image}", version="2.35").status == 204
    assert member.request("GET", f"/image/v2/images/{image}").status == 404
