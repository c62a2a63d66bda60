"""A server is shelved: it leaves its host and comes back from its image, where there is room for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cumulet.compute import boot, shelved
from cumulet.compute import hosts as host_records
from cumulet.compute.store import get_server
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.image.files import image_folder
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of, leftovers, other

NOWHERE: dict[str, object] = {"guests": {}, "allocated": [], "bound": [""]}


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def images_of(client: Client, server: str) -> list[JsonObject]:
    found = client.request("GET", "/image/v2/images")["images"]
    return [image for image in found if image.get("instance_uuid") == server]


def shelve(client: Client, server: str) -> None:
    answer = client.action(server, {"shelve": None})
    assert answer.status == 202, answer.text
    client.wait_for_status(server, "SHELVED_OFFLOADED")


def unshelve(client: Client, server: str, body: object = None) -> None:
    answer = client.action(server, {"unshelve": body})
    assert answer.status == 202, answer.text
    client.wait_for_status(server, "ACTIVE")


@pytest.mark.parametrize("before", [None, "os-stop", "pause", "suspend"])
def test_it_leaves_its_host_and_comes_back_with_its_ports(
    cloud: TestCloud, admin: Client, member: Client, server: str, before: str | None
) -> None:
    was = member.server(server)
    if before is not None:
        assert member.action(server, {before: None}).status == 202
        member.wait("it", lambda: member.server(server)["OS-EXT-STS:task_state"] is None)
    shelve(member, server)
    (image,) = images_of(member, server)
    assert (image["name"], image["status"]) == (f"{was['name']}-shelved", "active")
    shown = admin.server(server)
    assert (shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-STS:vm_state"]) == (None, "shelved_offloaded")
    assert leftovers(cloud, admin, server) == NOWHERE
    cloud.reconcile()
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    unshelve(member, server)
    host = host_of(admin, server)
    assert leftovers(cloud, admin, server) == {
        "guests": {host: GuestState.RUNNING},
        "allocated": [host],
        "bound": [host],
    }
    after = member.server(server)
    assert (after["addresses"], after["image"]) == (was["addresses"], was["image"])
    member.wait("the image to go", lambda: images_of(member, server) == [])
    folder = image_folder(cloud.embedded.settings.state_dir)
    member.wait("its data to go", lambda: not (folder / image["id"]).exists())
    actions = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert [one["action"] for one in actions][:2] == ["unshelve", "shelve"]


@pytest.mark.parametrize("version", ["2.1", "2.76", "2.77", "2.90", "2.91"])
def test_it_comes_back_at_every_version_without_a_word_where(
    cloud: TestCloud, member: Client, server: str, version: str
) -> None:
    assert member.action(server, {"shelve": None}).status == 202
    cloud.idle()
    assert member.action(server, {"unshelve": None}, version=version).status == 202
    cloud.idle()
    assert member.server(server)["status"] == "ACTIVE"


def test_a_shelved_server_is_deleted_with_its_image(cloud: TestCloud, member: Client, server: str) -> None:
    shelve(member, server)
    (image,) = images_of(member, server)
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("it to go", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    assert images_of(member, server) == []
    folder = image_folder(cloud.embedded.settings.state_dir)
    member.wait("its data to go", lambda: not (folder / image["id"]).exists())


def test_an_administrator_names_the_host(admin: Client, member: Client, server: str) -> None:
    there = other(host_of(admin, server))
    shelve(member, server)
    unshelve(admin, server, {"host": there})
    assert host_of(admin, server) == there


def test_a_zone_that_is_named_is_kept_until_it_is_taken_away(member: Client, server: str) -> None:
    """It is pinned: later moves stay in that zone."""
    pinned: list[object] = []
    for zone in ("nova", None, "nova", ""):
        shelve(member, server)
        unshelve(member, server, {"availability_zone": zone})
        pinned.append(member.server(server)["pinned_availability_zone"])
        shelve(member, server)
        unshelve(member, server, None)
        assert member.server(server)["pinned_availability_zone"] == pinned[-1], "it is not asked about"
    assert pinned == ["nova", None, "nova", None]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"host": "nohost"}, 400, "Compute host nohost could not be found."),
        ({"availability_zone": "nozone"}, 400, "The requested availability zone is not available"),
        ({"availability_zone": "nova", "x": 1}, 400, "Additional properties are not allowed"),
    ],
)
def test_what_cannot_be_had_leaves_it_shelved(
    admin: Client, member: Client, server: str, body: object, status: int, words: str
) -> None:
    shelve(member, server)
    answer = admin.action(server, {"unshelve": body})
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    assert member.server(server)["OS-EXT-STS:task_state"] is None


def test_only_an_administrator_names_a_host(member: Client, server: str) -> None:
    shelve(member, server)
    assert member.action(server, {"unshelve": {"host": "host1"}}).status == 403


def test_no_room_and_disabled_hosts_hold_and_it_stays_shelved(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    shelve(member, server)
    services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    for service in services:
        assert admin.compute("PUT", f"/os-services/{service['id']}", {"status": "disabled"}).status == 200
    assert member.action(server, {"unshelve": None}).status == 202
    member.wait_for_status(server, "SHELVED_OFFLOADED")
    actions = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert (actions[0]["action"], actions[0]["message"]) == ("unshelve", "Error")
    assert leftovers(cloud, admin, server) == NOWHERE
    assert len(images_of(member, server)) == 1
    assert member.server(server)["fault"]["message"] == boot.NO_VALID_HOST
    for service in services:
        assert admin.compute("PUT", f"/os-services/{service['id']}", {"status": "enabled"}).status == 200
    unshelve(member, server)
    shelve(member, server)
    assert "fault" not in member.server(server), "it is over"


def going_down(cloud: TestCloud, host: str, *, made: bool) -> type[Way]:
    """A host that is lost when it is told to make a guest: before it has, or after."""

    class GoesDown(Way):
        down = False

        async def send(self, message: m.Message[object]) -> object:
            if isinstance(message, m.Create):
                self.down = True
                if made:
                    await super().send(message)
                await cloud.embedded.db.write_async(lambda tx: host_records.set_up(tx, host, up=False, now_us=1))
            if self.down:
                raise m.HostUnreachable("a test has cut the way to this host")
            return await super().send(message)

    return GoesDown


@pytest.mark.parametrize("made", [True, False])
def test_one_whose_host_goes_down_meanwhile_is_shelved_again_when_it_is_back(
    cloud: TestCloud, admin: Client, member: Client, server: str, made: bool
) -> None:
    """Whether the host has made the guest or not."""
    there = other(host_of(admin, server))
    shelve(member, server)
    with instead(cloud, there, going_down(cloud, there, made=made)):
        assert admin.action(server, {"unshelve": {"host": there}}).status == 202
        fault = member.wait_for_status(server, "ERROR")["fault"]["message"]
        assert fault == "The server could not be unshelved."
        assert host_of(admin, server) == there, "nobody else may run it"
    cloud.reconcile()
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    assert leftovers(cloud, admin, server) == NOWHERE
    assert len(images_of(member, server)) == 1
    findings = admin.compute("GET", "/cumulet/findings")["findings"]
    assert ("unshelved-by-half", "shelved again") in [(one["finding"], one["done"]) for one in findings]
    unshelve(member, server)
    assert "fault" not in member.server(server)
    member.wait("the image to go", lambda: images_of(member, server) == [])


@pytest.mark.parametrize("made", [True, False])
def test_so_is_one_that_was_to_be_rebuilt_while_that_host_was_down(
    cloud: TestCloud, admin: Client, member: Client, server: str, made: bool
) -> None:
    there = other(host_of(admin, server))
    own = member.server(server)["image"]["id"]
    shelve(member, server)
    with instead(cloud, there, going_down(cloud, there, made=made)):
        assert admin.action(server, {"unshelve": {"host": there}}).status == 202
        member.wait_for_status(server, "ERROR")
        assert member.action(server, {"rebuild": {"imageRef": own}}).status == 202
        cloud.idle()
        assert member.server(server)["fault"]["message"] == "The server could not be unshelved."
    cloud.reconcile()
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    assert leftovers(cloud, admin, server) == NOWHERE
    unshelve(member, server)


def set_forced_down(admin: Client, host: str, down: bool) -> None:
    services = admin.compute("GET", f"/os-services?binary=nova-compute&host={host}")["services"]
    assert admin.compute("PUT", f"/os-services/{services[0]['id']}", {"forced_down": down}).status == 200


@contextlib.contextmanager
def not_unshelved(cloud: TestCloud, admin: Client, server: str, there: str) -> Iterator[None]:
    """In the block it is in ERROR on this host, which went down after it had made its guest."""
    with instead(cloud, there, going_down(cloud, there, made=True)):
        assert admin.action(server, {"unshelve": {"host": there}}).status == 202
        admin.wait_for_status(server, "ERROR")
        yield


def evacuated(admin: Client, server: str, source: str) -> None:
    set_forced_down(admin, source, True)
    assert admin.action(server, {"evacuate": {}}, version="2.94").status == 200
    admin.wait_for_status(server, "ACTIVE")


def made_from(cloud: TestCloud, server: str, host: str) -> str:
    """The image of its guest there."""
    assert cloud.embedded.world is not None
    image = cloud.embedded.world.drivers[host]._guests[server].guest.image
    assert image is not None
    return image.id


def require_forgotten(cloud: TestCloud, member: Client, server: str, image: JsonObject) -> None:
    """Its owner has neither the image that it was shelved to, nor its data; nothing of the server names it."""
    cloud.idle()
    assert images_of(member, server) == []
    assert not (image_folder(cloud.embedded.settings.state_dir) / image["id"]).exists()
    left = cloud.embedded.db.read(lambda tx: get_server(tx, server)).system_metadata
    assert not {*shelved.KEYS} & left.keys()


def test_one_whose_host_is_lost_meanwhile_is_evacuated_with_what_it_was_shelved_with(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """That image goes, as when it is unshelved."""
    here = host_of(admin, server)
    there = other(here)
    shelve(member, server)
    (image,) = images_of(member, server)
    with not_unshelved(cloud, admin, server, there):
        evacuated(admin, server, there)
    assert made_from(cloud, server, here) == image["id"]
    require_forgotten(cloud, member, server, image)
    set_forced_down(admin, there, False)
    cloud.reconcile()
    assert leftovers(cloud, admin, server)["guests"] == {here: GuestState.RUNNING}


def test_what_it_was_shelved_with_is_forgotten_once_it_is_rebuilt(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """Should its host be lost later, it is made from the image that it was rebuilt from."""
    here = host_of(admin, server)
    there = other(here)
    own = member.server(server)["image"]["id"]
    shelve(member, server)
    (image,) = images_of(member, server)
    with not_unshelved(cloud, admin, server, there):
        pass
    set_forced_down(admin, there, False)
    assert member.action(server, {"rebuild": {"imageRef": own}}).status == 202
    member.wait_for_status(server, "ACTIVE")
    require_forgotten(cloud, member, server, image)
    evacuated(admin, server, there)
    assert made_from(cloud, server, here) == own


@pytest.mark.parametrize("made", [True, False])
def test_one_that_is_rebuilt_from_what_it_was_shelved_with_keeps_that(
    cloud: TestCloud, admin: Client, member: Client, server: str, made: bool
) -> None:
    """It is its own image from then on, and its owner's: also if that rebuild fails and the server is deleted."""
    here = host_of(admin, server)
    there = other(here)
    shelve(member, server)
    (image,) = images_of(member, server)
    with not_unshelved(cloud, admin, server, there):
        pass
    set_forced_down(admin, there, False)
    if not made:
        cloud.faults.fail("rebuild", step="make_guest")
    assert member.action(server, {"rebuild": {"imageRef": image["id"]}}).status == 202
    cloud.idle()
    assert member.server(server)["status"] == ("ACTIVE" if made else "ERROR")
    if made:
        evacuated(admin, server, there)
        assert made_from(cloud, server, here) == image["id"]
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    assert [one["id"] for one in images_of(member, server)] == [image["id"]]
    assert (image_folder(cloud.embedded.settings.state_dir) / image["id"]).exists()


def test_one_whose_new_disk_failed_is_not_evacuated_with_what_it_was_shelved_with(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """Its user has asked for another disk, and the API says so."""
    here = host_of(admin, server)
    there = other(here)
    own = member.server(server)["image"]["id"]
    shelve(member, server)
    (image,) = images_of(member, server)
    with not_unshelved(cloud, admin, server, there):
        pass
    set_forced_down(admin, there, False)
    cloud.faults.fail("rebuild", step="make_guest")
    assert member.action(server, {"rebuild": {"imageRef": own}}).status == 202
    cloud.idle()
    assert "its old disk is gone" in member.server(server)["fault"]["message"]
    evacuated(admin, server, there)
    assert made_from(cloud, server, here) == own
    require_forgotten(cloud, member, server, image)


def test_a_group_s_policy_holds_where_it_comes_back(admin: Client, member: Client) -> None:
    policy = {"server_group": {"name": "apart", "policy": "anti-affinity"}}
    group = member.compute("POST", "/os-server-groups", policy)["server_group"]["id"]
    one, two = create_in_group(member, group)
    shelve(member, one)
    answer = admin.action(one, {"unshelve": {"host": host_of(admin, two)}})
    assert answer.status == 202
    member.wait_for_status(one, "SHELVED_OFFLOADED")
    unshelve(member, one)
    assert host_of(admin, one) != host_of(admin, two)


def create_in_group(client: Client, group: str) -> list[str]:
    from .servers import image_and_flavor

    made = []
    for name in ("one", "two"):
        body = {
            "server": {"name": name, "networks": "none", **image_and_flavor(client)},
            "os:scheduler_hints": {"group": group},
        }
        made.append(client.compute("POST", "/servers", body)["server"]["id"])
        client.wait_for_status(made[-1], "ACTIVE")
    return made


def test_what_a_shelved_server_does_not_do(admin: Client, member: Client, server: str) -> None:
    shelve(member, server)
    for action in ({"os-start": None}, {"shelve": None}, {"rebuild": {"imageRef": server}}, {"pause": None}):
        answer = member.action(server, action)
        assert answer.status in (400, 409), answer.text
    answer = admin.action(server, {"shelveOffload": None})
    assert answer.status == 409
    assert "while it is in vm_state shelved_offloaded" in answer.text


@pytest.mark.parametrize("state", ["active", "error"])
def test_one_without_a_host_is_said_to_be_in_no_other_state_and_comes_back(
    admin: Client, member: Client, server: str, state: str
) -> None:
    shelve(member, server)
    assert admin.action(server, {"os-resetState": {"state": state}}).status == 409
    assert admin.server(server)["status"] == "SHELVED_OFFLOADED"
    unshelve(member, server)
