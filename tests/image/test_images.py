"""Creating, showing, changing and deleting images, by personas who may and who may not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.errors import BadRequest
from cumulet.image import store

from .conftest import PATCH, PERSONAS, UNKNOWN, World


def test_a_new_image_has_glances_shape(world: World) -> None:
    answer = world.ask("member", "POST", "/images", json={"name": "n", "os_distro": "debian", "tags": ["b", "a", "b"]})
    assert answer.status_code == 201
    image = answer.json()
    assert answer.headers["location"].endswith(f"/image/v2/images/{image['id']}")
    assert {k: v for k, v in image.items() if k not in ("id", "created_at", "updated_at", "self", "file")} == {
        "name": "n",
        "status": "queued",
        "visibility": "shared",
        "owner": "p1",
        "disk_format": None,
        "container_format": None,
        "size": None,
        "virtual_size": None,
        "checksum": None,
        "os_hash_algo": None,
        "os_hash_value": None,
        "min_disk": 0,
        "min_ram": 0,
        "protected": False,
        "os_hidden": False,
        "os_distro": "debian",
        "tags": ["a", "b"],
        "schema": "/v2/schemas/image",
    }
    assert image["self"] == f"/v2/images/{image['id']}"
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert world.show(image["id"]) == image


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"status": "active"}, 403),
        ({"checksum": "x"}, 403),
        ({"size": 1}, 403),
        ({"os_hash_value": "x"}, 403),
        ({"created_at": "2026-01-01T00:00:00Z"}, 403),
        ({"self": "x"}, 403),
        ({"file": "x"}, 403),
        ({"direct_url": "file:///etc/shadow"}, 403),
        ({"location": "file:///etc/shadow"}, 403),
        ({"locations": [{"url": "file:///etc/shadow", "metadata": {}}]}, 403),
        ({"os_glance_import_task": "x"}, 403),
        ({"deleted": "x"}, 403),
        ({"owner": "p2"}, 403),
        ({"visibility": "public"}, 403),
        ({"visibility": "everybody"}, 400),
        ({"disk_format": "vmdk9"}, 400),
        ({"container_format": "zip"}, 400),
        ({"disk_format": "raw", "container_format": "ami"}, 400),
        ({"disk_format": "ami", "container_format": "bare"}, 400),
        ({"property": 1}, 400),
        ({"property": None}, 400),
        ({"property": {"a": "b"}}, 400),
        ({"p" * 256: "x"}, 400),
        ({"": "x"}, 400),
        ({"min_disk": -1}, 400),
        ({"min_disk": 1 << 31}, 400),
        ({"min_disk": True}, 400),
        ({"min_ram": "1"}, 400),
        ({"protected": "yes"}, 400),
        ({"name": "n" * 256}, 400),
        ({"tags": ["t" * 256]}, 400),
        ({"tags": "t"}, 400),
        ({"id": "not-a-uuid"}, 400),
        ({"id": UNKNOWN + "\n"}, 400),
        ({"id": "../../../etc/passwd"}, 400),
        ({f"p{n}": "x" for n in range(129)}, 413),
        ({"tags": [f"t{n}" for n in range(129)]}, 413),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_created(world: World, body: Mapping[str, object], status: int) -> None:
    answer = world.ask("member", "POST", "/images", json=body)
    assert answer.status_code == status, answer.text
    assert world.ask("admin", "GET", "/images").json()["images"] == []


@pytest.mark.parametrize(
    ("who", "status"), [("admin", 201), ("member", 201), ("reader", 403), ("nobody", 403), ("system", 403), ("", 401)]
)
def test_who_may_create(world: World, who: str, status: int) -> None:
    assert world.ask(who, "POST", "/images", json={"name": "n"}).status_code == status


def test_only_an_admin_publishes_or_gives_away(world: World) -> None:
    assert world.ask("admin", "POST", "/images", json={"visibility": "public"}).status_code == 201
    assert world.ask("admin", "POST", "/images", json={"owner": "p1"}).json()["owner"] == "p1"
    assert world.ask("member", "POST", "/images", json={"visibility": "community"}).status_code == 201


def test_an_id_is_given_out_once_for_ever(world: World) -> None:
    assert world.create(id=UNKNOWN)["id"] == UNKNOWN
    assert world.ask("member", "POST", "/images", json={"id": UNKNOWN}).status_code == 409
    assert world.ask("member", "DELETE", f"/images/{UNKNOWN}").status_code == 204
    assert world.ask("other", "POST", "/images", json={"id": UNKNOWN}).status_code == 409
    assert world.ask("member", "GET", f"/images/{UNKNOWN}").status_code == 404


# -- sight


@pytest.mark.parametrize(
    ("visibility", "seen_by"),
    [
        ("private", {"admin", "member", "reader"}),
        ("shared", {"admin", "member", "reader"}),
        ("community", {"admin", "member", "reader", "other", "other-reader", "third"}),
        ("public", {"admin", "member", "reader", "other", "other-reader", "third"}),
    ],
)
def test_who_sees_an_image(world: World, visibility: str, seen_by: set[str]) -> None:
    image = world.active(who="admin", owner="p1", visibility=visibility)
    for who in PERSONAS:
        answer = world.ask(who, "GET", f"/images/{image['id']}")
        assert answer.status_code == (200 if who in seen_by else 404), who
        listed = world.ask(who, "GET", "/images", params={"visibility": visibility})
        if who in ("nobody", "system"):
            assert listed.status_code == 403
        else:
            assert [i["id"] for i in listed.json()["images"]] == ([image["id"]] if who in seen_by else []), who


def test_an_image_out_of_sight_is_like_one_that_does_not_exist(world: World) -> None:
    image = world.active(visibility="private")
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("GET", "", {}),
        ("DELETE", "", {}),
        ("PATCH", "", {"json": [{"op": "add", "path": "/x", "value": "y"}], "headers": PATCH}),
        ("GET", "/file", {}),
        ("PUT", "/file", {"content": b"x", "headers": {"Content-Type": "application/octet-stream"}}),
        ("PUT", "/tags/x", {}),
        ("DELETE", "/tags/x", {}),
        ("GET", "/members", {}),
        ("POST", "/members", {"json": {"member": "p2"}}),
        ("GET", "/members/p2", {}),
        ("PUT", "/members/p2", {"json": {"status": "accepted"}}),
        ("DELETE", "/members/p2", {}),
        ("POST", "/actions/deactivate", {}),
        ("POST", "/actions/reactivate", {}),
    ]
    for method, path, options in requests:
        hidden = world.ask("other", method, f"/images/{image['id']}{path}", **dict(options))
        unknown = world.ask("other", method, f"/images/{UNKNOWN}{path}", **dict(options))
        assert (hidden.status_code, unknown.status_code) == (404, 404), (method, path)
        assert hidden.text.replace(image["id"], UNKNOWN) == unknown.text, (method, path)
    assert world.show(image["id"]) == image


@pytest.mark.parametrize("visibility", ["public", "community"])
def test_what_others_may_not_do_to_an_image_they_see(world: World, visibility: str) -> None:
    image = world.active(who="admin", owner="p1", visibility=visibility)
    path = f"/images/{image['id']}"
    assert world.ask("other", "DELETE", path).status_code == 403
    assert world.patch(image["id"], {"op": "replace", "path": "/name", "value": "x"}, who="other").status_code == 403
    assert world.upload(image["id"], b"x", who="other").status_code == 403
    assert world.ask("other", "PUT", f"{path}/tags/x").status_code == 403
    assert world.ask("other", "POST", f"{path}/actions/deactivate").status_code == 403
    assert world.ask("other", "GET", f"{path}/file").status_code == 200
    assert world.ask("other-reader", "GET", f"{path}/file").status_code == 403
    assert world.show(image["id"]) == image


def test_a_reader_changes_nothing(world: World) -> None:
    image = world.active()
    path = f"/images/{image['id']}"
    assert world.ask("reader", "DELETE", path).status_code == 403
    assert world.patch(image["id"], {"op": "replace", "path": "/name", "value": "x"}, who="reader").status_code == 403
    assert world.ask("reader", "POST", f"{path}/members", json={"member": "p2"}).status_code == 403
    assert world.show(image["id"]) == image


def test_a_protected_image_is_not_deleted(world: World) -> None:
    image = world.create(protected=True)
    assert world.ask("member", "DELETE", f"/images/{image['id']}").status_code == 403
    assert world.ask("admin", "DELETE", f"/images/{image['id']}").status_code == 403
    world.patch(image["id"], {"op": "replace", "path": "/protected", "value": False})
    assert world.ask("member", "DELETE", f"/images/{image['id']}").status_code == 204


# -- changing


def test_attributes_and_properties_are_changed(world: World) -> None:
    image = world.create(os_distro="debian", other="x")
    answer = world.patch(
        image["id"],
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "replace", "path": "/os_distro", "value": "trixie"},
        {"op": "add", "path": "/hw_disk_bus", "value": "virtio"},
        {"op": "add", "path": "/a~1b~0c", "value": "slash"},
        {"op": "remove", "path": "/other"},
        {"op": "replace", "path": "/tags", "value": ["t"]},
        {"op": "replace", "path": "/min_disk", "value": 3},
        {"op": "replace", "path": "/visibility", "value": "community"},
    )
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert (changed["name"], changed["os_distro"], changed["hw_disk_bus"], changed["a/b~c"]) == (
        "new",
        "trixie",
        "virtio",
        "slash",
    )
    assert "other" not in changed
    assert (changed["tags"], changed["min_disk"], changed["visibility"]) == (["t"], 3, "community")
    assert world.show(image["id"]) == changed


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"op": "replace", "path": "/status", "value": "active"}, 403),
        ({"op": "replace", "path": "/id", "value": UNKNOWN}, 403),
        ({"op": "replace", "path": "/checksum", "value": "x"}, 403),
        ({"op": "remove", "path": "/os_hash_value"}, 403),
        ({"op": "add", "path": "/location", "value": "file:///etc/shadow"}, 403),
        ({"op": "add", "path": "/locations/-", "value": {"url": "file:///etc/shadow", "metadata": {}}}, 403),
        ({"op": "replace", "path": "/locations", "value": []}, 403),
        ({"op": "add", "path": "/os_glance_x", "value": "x"}, 403),
        ({"op": "replace", "path": "/owner", "value": "p2"}, 403),
        ({"op": "add", "path": "/owner", "value": "p2"}, 403),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
        ({"op": "add", "path": "/visibility", "value": "public"}, 403),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "replace", "path": "/disk_format", "value": "qcow2"}, 403),
        ({"op": "replace", "path": "/container_format", "value": None}, 403),
        ({"op": "replace", "path": "/missing", "value": "x"}, 409),
        ({"op": "remove", "path": "/missing"}, 409),
        ({"op": "replace", "path": "/visibility", "value": "all"}, 400),
        ({"op": "replace", "path": "/min_disk", "value": -1}, 400),
        ({"op": "replace", "path": "/min_disk", "value": True}, 400),
        ({"op": "replace", "path": "/name", "value": "n" * 256}, 400),
        ({"op": "add", "path": "/x", "value": 1}, 400),
        ({"op": "add", "path": "/x"}, 400),
        ({"op": "add", "path": "x", "value": "y"}, 400),
        ({"op": "add", "path": "/", "value": "y"}, 400),
        ({"op": "add", "path": "/x/y", "value": "y"}, 400),
        ({"op": "add", "path": "//x", "value": "y"}, 400),
        ({"op": "add", "path": "/x~2", "value": "y"}, 400),
        ({"op": "add", "path": 1, "value": "y"}, 400),
        ({"op": "move", "path": "/x", "value": "y"}, 400),
        ({"op": ["add"], "path": "/x", "value": "y"}, 400),
        ({"path": "/x", "value": "y"}, 400),
        ({"op": "add", "value": "y"}, 400),
        ("text", 400),
    ],
    ids=str,
)
def test_what_cannot_be_changed(world: World, change: Any, status: int) -> None:
    image = world.active(protected=False)
    fine = {"op": "replace", "path": "/name", "value": "must not stay"}
    answer = world.patch(image["id"], fine, change)
    assert answer.status_code == status, answer.text
    assert world.show(image["id"]) == image


def test_an_admin_changes_the_owner(world: World) -> None:
    image = world.active(visibility="private")
    assert world.patch(image["id"], {"op": "replace", "path": "/owner", "value": "p2"}, who="admin").status_code == 200
    assert world.ask("member", "GET", f"/images/{image['id']}").status_code == 404
    assert world.show(image["id"], "other")["owner"] == "p2"


@pytest.mark.parametrize("media", ["application/json", "application/json-patch+json", "text/plain"])
def test_a_patch_has_its_own_media_type(world: World, media: str) -> None:
    image = world.create()
    answer = world.ask("member", "PATCH", f"/images/{image['id']}", content=b"[]", headers={"Content-Type": media})
    assert answer.status_code == 415
    assert "openstack-images-v2.1-json-patch" in answer.headers["accept-patch"]


def test_the_older_patch_dialect(world: World) -> None:
    image = world.create(present="x")
    headers = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
    path = f"/images/{image['id']}"
    assert world.ask("member", "PATCH", path, json=[{"add": "/new", "value": "y"}], headers=headers).status_code == 200
    again = world.ask("member", "PATCH", path, json=[{"add": "/present", "value": "y"}], headers=headers)
    assert again.status_code == 409
    both = world.ask("member", "PATCH", path, json=[{"add": "/a", "remove": "/b", "value": "y"}], headers=headers)
    assert both.status_code == 400


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"null", b"[", b'[{"op": "add", "op": "remove", "path": "/x"}]', b"[NaN]"]
)
def test_a_patch_is_a_list_of_operations(world: World, body: bytes) -> None:
    image = world.create()
    assert world.ask("member", "PATCH", f"/images/{image['id']}", content=body, headers=PATCH).status_code == 400


def test_a_patch_has_a_limit(world: World) -> None:
    image = world.create()
    huge = [{"op": "add", "path": f"/p{n}", "value": "x" * 1000} for n in range(200)]
    assert world.patch(image["id"], *huge).status_code == 413
    many = [{"op": "add", "path": f"/p{n}", "value": "x"} for n in range(129)]
    assert world.patch(image["id"], *many).status_code == 413
    assert world.show(image["id"]) == image


def test_tags_one_by_one(world: World) -> None:
    image = world.create(tags=["a"])
    path = f"/images/{image['id']}/tags"
    assert world.ask("member", "PUT", f"{path}/b").status_code == 204
    assert world.ask("member", "PUT", f"{path}/b").status_code == 204
    assert world.ask("member", "PUT", f"{path}/with%20space").status_code == 204
    assert world.show(image["id"])["tags"] == ["a", "b", "with space"]
    assert world.ask("member", "DELETE", f"{path}/a").status_code == 204
    assert world.ask("member", "DELETE", f"{path}/a").status_code == 404
    assert world.ask("member", "PUT", f"{path}/{'t' * 256}").status_code == 400
    assert world.show(image["id"])["tags"] == ["b", "with space"]


def test_only_an_active_image_is_deactivated(world: World) -> None:
    image = world.create()
    for action in ("deactivate", "reactivate"):
        assert world.ask("member", "POST", f"/images/{image['id']}/actions/{action}").status_code == 403
    assert world.ask("reader", "POST", f"/images/{image['id']}/actions/deactivate").status_code == 403


# -- what compute asks


def test_compute_boots_what_the_caller_sees_and_what_is_active(world: World) -> None:
    image = world.active(b"disk" * 100, visibility="private", hw_disk_bus="virtio", min_disk=2, min_ram=64)
    queued = world.create()
    db = world.cloud.db
    boot = db.read(lambda tx: store.boot_image(tx, PERSONAS["member"], image["id"]))
    assert (world.store / boot.path).read_bytes() == b"disk" * 100
    assert (boot.sha512, boot.size_bytes, boot.virtual_size_bytes) == (image["os_hash_value"], 400, 400)
    assert (boot.disk_format, boot.min_disk_gib, boot.min_ram_mib) == ("raw", 2, 64)
    assert boot.properties == {"hw_disk_bus": "virtio"}
    for who, image_id in (("other", image["id"]), ("member", UNKNOWN)):
        with pytest.raises(BadRequest, match="Can not find requested image"):
            db.read(lambda tx, w=who, i=image_id: store.boot_image(tx, PERSONAS[w], i))  # type: ignore[misc]
    with pytest.raises(BadRequest, match="is not active"):
        db.read(lambda tx: store.boot_image(tx, PERSONAS["member"], queued["id"]))
