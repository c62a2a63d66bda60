"""The image that a server was shelved to, protected by its owner: nothing that befalls the server removes it."""

from __future__ import annotations

import asyncio

import pytest

import cumulet.testing
from cumulet.compute import shelved
from cumulet.compute.store import get_server
from cumulet.host import messages as m
from cumulet.host.disks import SnapshotProgress
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of, other
from .test_shelve import evacuated, images_of, not_unshelved, set_forced_down, shelve, unshelve


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def protect(member: Client, server: str) -> JsonObject:
    """The image that it was shelved to, which its owner protects."""
    (image,) = images_of(member, server)
    headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    change = [{"op": "replace", "path": "/protected", "value": True}]
    answer = member.request("PATCH", f"/image/v2/images/{image['id']}", change, headers=headers)
    assert answer.status == 200, answer.text
    return image


def require_kept(cloud: TestCloud, member: Client, server: str, image: JsonObject) -> None:
    """Its owner has the image still, and its data; nothing of the server names it."""
    cloud.idle()
    assert [(one["id"], one["status"]) for one in images_of(member, server)] == [(image["id"], "active")]
    assert member.request("GET", f"/image/v2/images/{image['id']}/file").status == 200
    left = cloud.embedded.db.read(lambda tx: get_server(tx, server, deleted=True)).system_metadata
    assert not {*shelved.KEYS} & left.keys()


def test_a_protected_image_is_left_when_its_server_is_unshelved(cloud: TestCloud, member: Client, server: str) -> None:
    shelve(member, server)
    image = protect(member, server)
    unshelve(member, server)
    require_kept(cloud, member, server, image)


def test_a_protected_image_is_left_when_its_server_is_deleted(cloud: TestCloud, member: Client, server: str) -> None:
    shelve(member, server)
    image = protect(member, server)
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    require_kept(cloud, member, server, image)


@pytest.mark.parametrize("how", ["rebuild", "evacuate"])
def test_a_protected_image_is_left_when_its_server_is_made_anew(
    cloud: TestCloud, admin: Client, member: Client, server: str, how: str
) -> None:
    there = other(host_of(admin, server))
    own = member.server(server)["image"]["id"]
    shelve(member, server)
    image = protect(member, server)
    with not_unshelved(cloud, admin, server, there):
        if how == "evacuate":
            evacuated(admin, server, there)
    if how == "rebuild":
        set_forced_down(admin, there, False)
        assert member.action(server, {"rebuild": {"imageRef": own}}).status == 202
        member.wait_for_status(server, "ACTIVE")
    require_kept(cloud, member, server, image)


def test_a_protected_image_is_left_when_its_server_cannot_be_shelved_after_all(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """It is protected once it is whole, a moment before the shelving is undone."""

    class FailsOnceItIsWhole(Way):
        async def send(self, message: m.Message[object]) -> object:
            answer = await super().send(message)
            if isinstance(answer, SnapshotProgress) and answer.phase.ended:
                await asyncio.to_thread(protect, member, server)
                raise m.VerbFailed("planted")
            return answer

    with instead(cloud, host_of(admin, server), FailsOnceItIsWhole):
        assert member.action(server, {"shelve": None}).status == 202
        cloud.idle()
    assert member.server(server)["status"] == "ACTIVE"
    (image,) = images_of(member, server)
    require_kept(cloud, member, server, image)


def test_a_protected_image_is_left_when_its_server_is_started_again_where_it_rests() -> None:
    with cumulet.testing.cloud(shelved_offload_time=60) as cloud:
        member = cloud.persona("member")
        server = create_pair(member, networks="auto")[0]
        assert member.action(server, {"shelve": None}).status == 202
        member.wait_for_status(server, "SHELVED")
        image = protect(member, server)
        unshelve(member, server)
        require_kept(cloud, member, server, image)
