"""Images and backups of servers: what is recorded of them, who may have them, and what stops them half-way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cumulet.drivers.simulated import snapshots
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.driver import DriverError
from cumulet.image.files import image_folder
from cumulet.image.snapshots import give_up
from cumulet.testing import Answer, Client, JsonObject, TestCloud
from tests.image.attack_images import Qcow2

from .servers import create_pair


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def create_image(client: Client, server: str, **body: object) -> Answer:
    answer = client.action(server, {"createImage": {"name": "image", **body}})
    assert answer.status == 202, answer.text
    return answer


def image(client: Client, image_id: str) -> JsonObject:
    answer = client.request("GET", f"/image/v2/images/{image_id}")
    assert answer.status == 200, answer.text
    found: dict[str, object] = answer.json
    return found


def made(client: Client, server: str, **body: object) -> JsonObject:
    """An image of the server, whole."""
    image_id = create_image(client, server, **body)["image_id"]
    client.wait("the image", lambda: image(client, image_id)["status"] == "active")
    client.wait("the server to be idle", lambda: client.server(server)["OS-EXT-STS:task_state"] is None)
    return image(client, image_id)


def actions(client: Client, server: str) -> list[JsonObject]:
    found: list[dict[str, object]] = client.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    return found


def test_an_image_says_what_it_is_of(member: Client, server: str) -> None:
    found = made(member, server, metadata={"colour": "blue"})
    base = member.server(server)["image"]["id"]
    assert (found["name"], found["visibility"], found["owner"]) == ("image", "private", member.project_id)
    assert (found["disk_format"], found["container_format"], found["min_disk"]) == ("qcow2", "bare", 1)
    assert {
        key: found[key]
        for key in ("instance_uuid", "image_type", "base_image_ref", "user_id", "owner_id", "image_state", "colour")
    } == {
        "instance_uuid": server,
        "image_type": "snapshot",
        "base_image_ref": base,
        "user_id": member.user_id,
        "owner_id": member.project_id,
        "image_state": "available",
        "colour": "blue",
    }
    assert found["virtual_size"] == 1 << 30


@pytest.mark.parametrize(
    ("action", "status"), [("pause", "PAUSED"), ("suspend", "SUSPENDED"), ("os-stop", "SHUTOFF"), (None, "ACTIVE")]
)
def test_a_server_is_as_it_was_afterwards(member: Client, server: str, action: str | None, status: str) -> None:
    if action is not None:
        assert member.action(server, {action: None}).status == 202
    member.wait_for_status(server, status)
    made(member, server)
    assert member.server(server)["status"] == status
    done = next(one for one in actions(member, server) if one["action"] == "createImage")
    shown = member.compute("GET", f"/servers/{server}/os-instance-actions/{done['request_id']}")["instanceAction"]
    assert [(event["event"], event["result"]) for event in shown["events"]] == [
        ("compute_snapshot_instance", "Success")
    ]


def test_a_server_is_made_from_an_image_of_another(member: Client, server: str) -> None:
    found = made(member, server)
    flavor = member.server(server, version="2.46")["flavor"]["id"]
    body = {"name": "two", "imageRef": found["id"], "flavorRef": flavor, "networks": "none"}
    second = member.compute("POST", "/servers", {"server": body})["server"]["id"]
    member.wait_for_status(second, "ACTIVE")


def test_where_an_image_is_found_depends_on_the_microversion(member: Client, server: str) -> None:
    answer = member.action(server, {"createImage": {"name": "old"}}, version="2.44")
    assert (answer.status, answer.text) == (202, "")
    image_id = answer.headers["location"].rpartition("/images/")[2]
    member.wait("the image", lambda: image(member, image_id)["status"] == "active")


def test_only_the_newest_backups_of_a_type_stay(cloud: TestCloud, member: Client, server: str) -> None:
    def backup(kind: str, rotation: int) -> str:
        body = {"createBackup": {"name": kind, "backup_type": kind, "rotation": rotation}}
        answer = member.action(server, body)
        assert answer.status == 202, answer.text
        member.wait("it to be made", lambda: member.server(server)["OS-EXT-STS:task_state"] is None)
        image_id: str = answer["image_id"]
        return image_id

    weekly = backup("weekly", 5)
    daily = [backup("daily", 2) for _ in range(3)]
    there = {
        image_id: member.request("GET", f"/image/v2/images/{image_id}").status == 200 for image_id in (weekly, *daily)
    }
    assert list(there.values()) == [True, False, True, True]
    folder = image_folder(cloud.embedded.settings.state_dir)
    member.wait("the old data to go", lambda: not (folder / daily[0]).exists())
    assert (folder / daily[1]).exists()
    last = backup("daily", 0)
    assert all(member.request("GET", f"/image/v2/images/{i}").status == 404 for i in (*daily, last))
    assert image(member, weekly)["image_type"] == "backup"


def test_a_protected_backup_stays(cloud: TestCloud, member: Client, server: str) -> None:
    def backup() -> str:
        body = {"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}}
        image_id: str = member.action(server, body)["image_id"]
        cloud.idle()
        return image_id

    kept = backup()
    protect = [{"op": "replace", "path": "/protected", "value": True}]
    patch = {"content-type": "application/openstack-images-v2.1-json-patch"}
    answer = member.request("PATCH", f"/image/v2/images/{kept}", protect, headers=patch)
    assert answer.status == 200, answer.text
    second, third = backup(), backup()
    assert image(member, kept)["status"] == image(member, third)["status"] == "active"
    assert member.request("GET", f"/image/v2/images/{second}").status == 404


def test_an_administrators_backups_push_out_none_of_the_owners(admin: Client, member: Client, server: str) -> None:
    def backup(client: Client, rotation: int) -> str:
        body = {"createBackup": {"name": "b", "backup_type": "daily", "rotation": rotation}}
        image_id: str = client.action(server, body)["image_id"]
        client.wait("the image", lambda: image(client, image_id)["status"] == "active")
        client.wait("the server to be idle", lambda: client.server(server)["OS-EXT-STS:task_state"] is None)
        return image_id

    owners = backup(member, 2)
    first, second = backup(admin, 1), backup(admin, 1)
    assert image(member, owners)["status"] == image(admin, second)["status"] == "active"
    assert admin.request("GET", f"/image/v2/images/{first}").status == 404


def test_only_an_image_without_its_content_is_given_up(cloud: TestCloud, member: Client, server: str) -> None:
    """An operation may fail, or be aborted, when its image has come."""
    whole = made(member, server)["id"]
    cloud.embedded.db.write(lambda tx: give_up(tx, whole, cloud.clock.now_us()))
    assert image(member, whole)["status"] == "active"


def test_nor_is_one_that_is_protected(cloud: TestCloud, member: Client) -> None:
    body = {"name": "i", "disk_format": "qcow2", "container_format": "bare", "protected": True}
    waiting = member.request("POST", "/image/v2/images", body)["id"]
    cloud.embedded.db.write(lambda tx: give_up(tx, waiting, cloud.clock.now_us()))
    assert member.request("GET", f"/image/v2/images/{waiting}")["status"] == "queued"


def test_an_administrators_image_of_anothers_server_is_shared_with_its_project(
    admin: Client, member: Client, server: str
) -> None:
    found = made(admin, server)
    assert (found["owner"], found["visibility"]) == (admin.project_id, "shared")
    assert found["instance_owner"] == member.project_id
    assert member.request("GET", f"/image/v2/images/{found['id']}").status == 200


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that do not end while a test looks."""
    monkeypatch.setattr(snapshots, "COPY_MIB_S", 0.01)


@pytest.fixture
def under_way(slow_copies: None, member: Client, server: str) -> str:
    """An image that is being made of `server`, slowly."""
    image_id: str = create_image(member, server)["image_id"]
    member.wait("the copy to begin", lambda: member.server(server)["OS-EXT-STS:task_state"] == "image_pending_upload")
    return image_id


def no_copy_is_left(cloud: TestCloud) -> bool:
    assert cloud.embedded.world is not None
    return not any(driver.snapshot_tasks() for driver in cloud.embedded.world.drivers.values())


def test_deleting_the_image_ends_its_making(cloud: TestCloud, member: Client, server: str, under_way: str) -> None:
    assert member.request("DELETE", f"/image/v2/images/{under_way}").status == 204
    member.wait_for_status(server, "ACTIVE")
    assert no_copy_is_left(cloud)
    assert next(one for one in actions(member, server) if one["action"] == "createImage")["message"] == "Error"


def test_deleting_the_server_ends_the_making_of_its_image(
    cloud: TestCloud, member: Client, server: str, under_way: str
) -> None:
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("the server to go", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    assert member.request("GET", f"/image/v2/images/{under_way}").status == 404
    assert no_copy_is_left(cloud)


@pytest.mark.parametrize("action", [{"os-stop": None}, {"createImage": {"name": "x"}}, {"pause": None}])
def test_one_thing_at_a_time(member: Client, server: str, under_way: str, action: JsonObject) -> None:
    answer = member.action(server, action)
    assert answer.status == 409
    assert "task_state image_pending_upload" in answer.text


@pytest.fixture
def busy(admin: Client) -> str:
    """A flavor whose guests' moves do not end."""
    wanted = {"name": "busy", "vcpus": 1, "ram": 1024, "disk": 1}
    flavor: str = admin.compute("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
    specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": "100000"}}
    assert admin.compute("POST", f"/flavors/{flavor}/os-extra_specs", specs).status == 200
    return flavor


def test_none_is_made_of_a_server_that_moves(admin: Client, member: Client, busy: str) -> None:
    server = create_pair(member, networks="auto", flavorRef=busy)[0]
    assert admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
    answer = member.action(server, {"createImage": {"name": "x"}})
    assert answer.status == 409
    assert "task_state migrating" in answer.text


def test_what_is_refused_leaves_no_image(
    cloud: TestCloud, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count() -> int:
        return len(member.request("GET", "/image/v2/images")["images"])

    before = count()
    for metadata, status in (({"status": "active"}, 403), ({"owner": "x"}, 403), ({"a" * 256: "x"}, 400)):
        answer = member.action(server, {"createImage": {"name": "x", "metadata": metadata}})
        assert answer.status == status, answer.text
    assert member.action(server, {"createBackup": {"name": "x", "backup_type": "d", "rotation": -1}}).status == 400
    assert count() == before

    async def refused(self: disk.BeginSnapshot, host: m.OnHost) -> None:
        raise m.VerbFailed("planted")

    monkeypatch.setattr(disk.BeginSnapshot, "do", refused)
    image_id = create_image(member, server)["image_id"]
    member.wait_for_status(server, "ACTIVE")
    assert member.request("GET", f"/image/v2/images/{image_id}").status == 404
    assert count() == before


def test_nobody_brings_what_is_not_waited_for(cloud: TestCloud, member: Client, server: str) -> None:
    """A host may bring only the image that its own guest's snapshot waits for."""
    from cumulet.compute.images_of_hosts import require_wanted
    from cumulet.errors import NotFound

    found = made(member, server)
    for host in cloud.hosts:
        with pytest.raises(NotFound):
            cloud.embedded.db.read(lambda tx, host=host: require_wanted(tx, host, found["id"]))  # type: ignore[misc]


def test_what_a_host_brings_is_looked_at_as_an_upload_is(
    cloud: TestCloud, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = cloud.embedded.world
    assert world is not None
    assert world.take is not None
    take, told = world.take, list[str]()
    content = Qcow2(backing=b"/etc/shadow").build()

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    async def bad(host: str, image_id: str, _size: int, _pieces: AsyncIterator[bytes]) -> None:
        try:
            await take(host, image_id, len(content), pieces())
        except DriverError as refused:
            told.append(str(refused))
            raise

    monkeypatch.setattr(world, "take", bad)
    image_id = create_image(member, server)["image_id"]
    member.wait("the image to go", lambda: member.request("GET", f"/image/v2/images/{image_id}").status == 404)
    assert told
    assert all("the image was not taken" in one and "backing file" in one for one in told)


def test_it_is_found_by_its_server_and_kind_on_the_older_paths(member: Client, server: str) -> None:
    found = made(member, server)["id"]
    for query in (f"server={server}", f"server=https://x/servers/{server}", "type=snapshot"):
        answer = member.compute("GET", f"/images/detail?{query}", version="2.35")
        assert [image["id"] for image in answer["images"]] == [found], query
        assert answer["images"][0]["server"]["id"] == server
    assert member.compute("GET", "/images?type=backup", version="2.35")["images"] == []
    assert member.request("GET", f"/image/v2/images/{found}/tasks").json == {"tasks": []}
