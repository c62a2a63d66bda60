"""A server is rescued: it boots from another image, its own disk second, and is taken back."""

from __future__ import annotations

import msgspec
import pytest

from cumulet.compute.images_of_hosts import image_for
from cumulet.compute.store import get_server, update_server
from cumulet.host import disk_messages as disk
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.testing import Client, TestCloud
from tests.image.attack_images import Qcow2
from tests.links import Way, instead
from tests.testing.test_reachability import made as made_of_network

from .servers import create_pair, host_of
from .test_compute_servers import create
from .test_create_image import made
from .test_evacuation import force_down
from .test_guest_metadata import drive_of, told


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def rescue(client: Client, server: str, body: object = None) -> str:
    answer = client.action(server, {"rescue": body})
    assert answer.status == 200, answer.text
    password: str = answer["adminPass"]
    client.wait_for_status(server, "RESCUE")
    return password


def runs_from(cloud: TestCloud, admin: Client, server: str) -> str | None:
    """The image that it is rescued with."""
    assert cloud.embedded.world is not None
    image = cloud.embedded.world.drivers[host_of(admin, server)]._guests[server].rescue_image
    return None if image is None else image.id


@pytest.mark.parametrize("before", ["ACTIVE", "SHUTOFF"])
def test_it_runs_from_its_image_and_is_taken_back(
    cloud: TestCloud, admin: Client, member: Client, server: str, before: str
) -> None:
    if before == "SHUTOFF":
        assert member.action(server, {"os-stop": None}).status == 202
        member.wait_for_status(server, "SHUTOFF")
    was = member.server(server)
    assert rescue(member, server, {"adminPass": "secret"}) == "secret"
    shown = member.server(server)
    assert (shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"]) == ("rescued", 1)
    assert runs_from(cloud, admin, server) == was["image"]["id"]
    cloud.reconcile()
    assert member.server(server)["status"] == "RESCUE"
    assert member.action(server, {"unrescue": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert runs_from(cloud, admin, server) is None
    assert member.server(server)["image"] == was["image"]
    actions = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"]
    assert [one["action"] for one in actions][:2] == ["unrescue", "rescue"]


def test_it_is_rescued_with_another_image(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    image = made(member, server)["id"]
    rescue(member, server, {"rescue_image_ref": image})
    assert runs_from(cloud, admin, server) == image


@pytest.mark.parametrize("minimum", [{"min_ram": 1_000_000}, {"min_disk": 1_000}, {}])
def test_the_image_may_ask_for_more_than_the_flavor_has(
    cloud: TestCloud, admin: Client, member: Client, server: str, minimum: dict[str, int]
) -> None:
    """Also where the flavor has no disk, which members make no servers of."""
    content = Qcow2(virtual_size=50 << 30).build()
    body = {"name": "rescue", "disk_format": "qcow2", "container_format": "bare", **minimum}
    image = member.request("POST", "/image/v2/images", body)["id"]
    headers = {"Content-Type": "application/octet-stream"}
    sent = member.request("PUT", f"/image/v2/images/{image}/file", content=content, headers=headers)
    assert sent.status == 204, sent.text
    if not minimum:
        before = cloud.embedded.db.read(lambda tx: get_server(tx, server))
        flavor = msgspec.structs.replace(before.flavor, disk_gib=0)
        now = cloud.embedded.clock.now_us()
        cloud.embedded.db.write(lambda tx: update_server(tx, get_server(tx, server), now_us=now, flavor=flavor))
    rescue(member, server, {"rescue_image_ref": image})
    assert runs_from(cloud, admin, server) == image


class Described(Way):
    """Notes how a guest is described to its host while it is rescued."""

    guest: Guest

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, disk.Rescue):
            self.guest = message.guest
        return await super().send(message)


def test_it_is_told_where_its_ports_are_though_an_earlier_one_is_gone(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    network = made_of_network(member, "network", name="n")
    made_of_network(member, "subnet", network_id=network, cidr="10.7.0.0/24", ip_version=4)
    server = create(member, config_drive=True, networks=[{"uuid": network}, {"uuid": network}])["id"]
    first, second = told(drive_of(cloud, server))["devices"]
    assert [first["address"], second["address"]] == ["0000:01:00.0", "0000:02:00.0"]
    attached = member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"]
    (port,) = (one["port_id"] for one in attached if one["mac_addr"] == first["mac"])
    assert member.compute("DELETE", f"/servers/{server}/os-interface/{port}").status == 202
    cloud.idle()
    with instead(cloud, host_of(admin, server), Described) as way:
        rescue(member, server)
    drive = {path: file.content for file in way.guest.config_drive for path in file.paths}
    assert told(drive)["devices"] == [second]


def test_the_drive_it_boots_with_has_the_password_of_the_rescue(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member, config_drive=True, adminPass="its own")["id"]
    assert told(drive_of(cloud, server))["admin_pass"] == "its own"
    with instead(cloud, host_of(admin, server), Described) as way:
        rescue(member, server, {"adminPass": "the rescue's"})
    drive = {path: file.content for file in way.guest.config_drive for path in file.paths}
    assert told(drive)["admin_pass"] == "the rescue's"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"rescue_image_ref": "00000000-0000-4000-8000-000000000000"}, "is not supported"),
        ({"rescue_image_ref": "x"}, "rescue_image_ref"),
        ({"x": 1}, "Additional properties are not allowed"),
    ],
)
def test_what_cannot_be_had_changes_nothing(member: Client, server: str, body: object, words: str) -> None:
    before = member.server(server)
    answer = member.action(server, {"rescue": body})
    assert (answer.status, words in answer.text) == (400, True), answer.text
    assert member.server(server) == before


@pytest.fixture
def no_rescue(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host can rescue a guest."""

    async def fails(self: disk.Rescue, host: m.OnHost) -> None:
        raise m.VerbFailed("planted")

    monkeypatch.setattr(disk.Rescue, "do", fails)


def test_one_that_fails_runs_on_from_its_own_disk(
    cloud: TestCloud, admin: Client, member: Client, server: str, no_rescue: None
) -> None:
    assert member.action(server, {"rescue": None}).status == 200
    member.wait_for_status(server, "ACTIVE")
    assert runs_from(cloud, admin, server) is None


def test_a_stopped_one_that_fails_is_not_started(
    cloud: TestCloud, admin: Client, member: Client, server: str, no_rescue: None
) -> None:
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    assert member.action(server, {"rescue": None}).status == 200
    cloud.idle()
    assert member.server(server)["status"] == "SHUTOFF"
    assert cloud.guests(host_of(admin, server))[server] is GuestState.STOPPED


def test_its_host_gets_the_rescue_image_for_as_long_as_it_is_rescued(
    cloud: TestCloud, admin: Client, member: Client, server: str, request: pytest.FixtureRequest
) -> None:
    image, host = made(member, server), host_of(admin, server)

    def offered() -> str | None:
        return cloud.embedded.db.read(lambda tx: image_for(tx, host, image["os_hash_value"]))

    body = {"rescue": {"rescue_image_ref": image["id"]}}
    rescue(member, server, body["rescue"])
    assert offered() == image["id"]
    assert member.action(server, {"unrescue": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert offered() is None
    request.getfixturevalue("no_rescue")
    assert member.action(server, body).status == 200
    cloud.idle()
    assert offered() is None, "a rescue that has failed"


def test_what_a_rescued_server_does_not_do(member: Client, server: str) -> None:
    rescue(member, server)
    for action in ({"rescue": None}, {"os-stop": None}, {"createImage": {"name": "x"}}, {"reboot": {"type": "HARD"}}):
        answer = member.action(server, action)
        assert answer.status == 409, answer.text
        assert "vm_state rescued" in answer.text
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    member.wait("it to go", lambda: member.compute("GET", f"/servers/{server}").status == 404)


class Unheard(Way):
    """The host does the first thing that it is told. Its answer is lost, and nothing else arrives."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, disk.Unrescue):
            await super().send(message)
        raise m.HostUnreachable("a test has cut the way to this host")


def test_one_that_was_taken_back_unheard_is_found_so(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    rescue(member, server)
    host = host_of(admin, server)
    with instead(cloud, host, Unheard):
        force_down(admin, host)  # So nobody waits for its answer.
        assert member.action(server, {"unrescue": None}).status == 202
        cloud.idle()
        assert runs_from(cloud, admin, server) is None
        assert member.server(server)["status"] == "RESCUE"
    force_down(admin, host, down=False)
    cloud.reconcile()
    assert member.server(server)["status"] == "ACTIVE"
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    rescue(member, server)
