"""Sharing an image with another project: offered, accepted, seen, taken back."""

from __future__ import annotations

import pytest

from .conftest import World


def share(world: World, image_id: str, member: str = "p2", who: str = "member") -> int:
    return world.ask(who, "POST", f"/images/{image_id}/members", json={"member": member}).status_code


def test_an_image_is_shared_and_accepted(world: World) -> None:
    image = world.active(b"shared data")
    path = f"/images/{image['id']}"
    answer = world.ask("member", "POST", f"{path}/members", json={"member": "p2"})
    assert answer.status_code == 200
    assert set(answer.json()) == {"member_id", "image_id", "status", "created_at", "updated_at", "schema"}
    assert (answer.json()["member_id"], answer.json()["status"]) == ("p2", "pending")
    # Seen by those who know its id at once, in lists only when taken on.
    assert world.show(image["id"], "other")["name"] == "image"
    assert world.ask("other", "GET", "/images").json()["images"] == []
    pending = world.ask("other", "GET", "/images", params={"member_status": "pending", "visibility": "shared"})
    assert [i["id"] for i in pending.json()["images"]] == [image["id"]]
    assert world.ask("other", "PUT", f"{path}/members/p2", json={"status": "accepted"}).json()["status"] == "accepted"
    assert [i["id"] for i in world.ask("other", "GET", "/images").json()["images"]] == [image["id"]]
    assert world.ask("other", "GET", f"{path}/file").content == b"shared data"
    assert world.ask("third", "GET", path).status_code == 404
    # A member changes nothing, and shares it with nobody.
    assert world.patch(image["id"], {"op": "replace", "path": "/name", "value": "x"}, who="other").status_code == 403
    assert world.ask("other", "DELETE", path).status_code == 403
    assert share(world, image["id"], "p3", who="other") == 403
    assert world.ask("other", "DELETE", f"{path}/members/p2").status_code == 403
    # And back.
    assert world.ask("member", "DELETE", f"{path}/members/p2").status_code == 204
    assert world.ask("other", "GET", path).status_code == 404


def test_only_the_member_accepts_an_image(world: World) -> None:
    image = world.create()
    share(world, image["id"])
    path = f"/images/{image['id']}/members/p2"
    assert world.ask("member", "PUT", path, json={"status": "accepted"}).status_code == 403
    assert world.ask("other-reader", "PUT", path, json={"status": "accepted"}).status_code == 403
    assert world.ask("third", "PUT", path, json={"status": "accepted"}).status_code == 404
    assert world.ask("other", "PUT", path, json={"status": "maybe"}).status_code == 400
    assert world.ask("other", "PUT", path, json={}).status_code == 400
    assert world.ask("admin", "PUT", path, json={"status": "rejected"}).status_code == 200


def test_a_member_sees_only_itself_among_the_members(world: World) -> None:
    image = world.create()
    for project in ("p2", "p3"):
        assert share(world, image["id"], project) == 200

    def listed(who: str) -> list[str]:
        answer = world.ask(who, "GET", f"/images/{image['id']}/members").json()
        assert answer["schema"] == "/v2/schemas/members"
        return [member["member_id"] for member in answer["members"]]

    assert listed("member") == listed("admin") == ["p2", "p3"]
    assert listed("other") == ["p2"]
    assert world.ask("other", "GET", f"/images/{image['id']}/members/p2").status_code == 200
    assert world.ask("other", "GET", f"/images/{image['id']}/members/p3").status_code == 404
    assert world.ask("reader", "GET", f"/images/{image['id']}/members/p3").status_code == 200


def test_sharing_twice_conflicts(world: World) -> None:
    image = world.create()
    assert share(world, image["id"]) == 200
    assert share(world, image["id"]) == 409


@pytest.mark.parametrize("visibility", ["private", "community"])
def test_only_shared_images_have_members(world: World, visibility: str) -> None:
    image = world.create(visibility=visibility)
    assert share(world, image["id"]) == 403
    assert world.ask("member", "GET", f"/images/{image['id']}/members").status_code == 403
    assert world.ask("member", "GET", f"/images/{image['id']}/members/p2").status_code == 404


@pytest.mark.parametrize("body", [{}, {"member": ""}, {"member": None}, {"member": ["p2"]}, {"member": "p" * 256}, []])
def test_a_member_is_a_project(world: World, body: object) -> None:
    image = world.create()
    assert world.ask("member", "POST", f"/images/{image['id']}/members", json=body).status_code == 400


def test_an_image_made_private_is_hidden_from_its_members(world: World) -> None:
    image = world.create()
    share(world, image["id"])
    world.patch(image["id"], {"op": "replace", "path": "/visibility", "value": "private"})
    assert world.ask("other", "GET", f"/images/{image['id']}").status_code == 404


def test_schemas_are_served_to_any_token(world: World) -> None:
    for name in ("image", "images", "member", "members"):
        answer = world.ask("reader", "GET", f"/schemas/{name}")
        assert (answer.status_code, answer.json()["name"]) == (200, name)
        assert world.ask("", "GET", f"/schemas/{name}").status_code == 401
