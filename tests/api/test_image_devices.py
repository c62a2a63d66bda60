"""An image chooses the devices of its guests: they have these, on a host that offers them, wherever they go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from cumulet.compute import image_devices
from cumulet.errors import ApiError
from cumulet.host import messages as m
from cumulet.host.devices import USUAL, Devices
from cumulet.host.driver import Guest
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead
from tests.testing.test_reachability import made

from .servers import AUTO, host_of, last_migration, other
from .test_compute_servers import LATEST, ask_for, create
from .test_further_disks import BLANK
from .test_guest_metadata import drive_of, told
from .test_image_promises import image
from .test_interfaces import attach
from .test_places import reasons
from .test_promises import described
from .test_rescue import rescue


def guest_of(cloud: TestCloud, admin: Client, server: str) -> Guest:
    assert cloud.embedded.world is not None
    return cloud.embedded.world.drivers[host_of(admin, server)]._guests[server].guest


@contextmanager
def without(cloud: TestCloud, host: str, *features: str) -> Iterator[None]:
    """That host does not offer these."""

    class Poorer(Way):
        async def send(self, message: m.Message[object]) -> object:
            answer = await super().send(message)
            if isinstance(message, m.AskFacts):
                kept = tuple(one for one in answer.features if one not in features)
                return msgspec.structs.replace(answer, features=kept)
            return answer

    with instead(cloud, host, Poorer):
        cloud.reconcile()
        yield


def network_of(member: Client) -> str:
    network = made(member, "network", name="n")
    made(member, "subnet", network_id=network, cidr="10.7.0.0/24", ip_version=4)
    return network


@pytest.mark.parametrize(
    ("properties", "devices"),
    [
        ({}, USUAL),
        ({"hw_disk_bus": "virtio", "hw_vif_model": "virtio", "hw_video_model": "vga"}, USUAL),
        ({"hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi"}, Devices(disk_bus="scsi", cdrom_bus="scsi")),
        ({"hw_disk_bus": "sata"}, Devices(disk_bus="sata", cdrom_bus="sata")),
        ({"hw_disk_bus": "usb"}, Devices(disk_bus="usb", cdrom_bus="sata")),
        ({"hw_cdrom_bus": "scsi"}, Devices(cdrom_bus="scsi")),
        ({"hw_vif_model": "VirtualE1000"}, Devices(nic_model="e1000")),
        ({"hw_video_model": "none"}, Devices(video_model="none")),
        ({"hw_pointer_model": "usbtablet"}, Devices(pointer_bus="usb")),
        ({"hw_input_bus": "virtio"}, Devices(pointer_bus="virtio", keyboard_bus="virtio")),
        ({"hw_disk_bus": "ide", "hw_vif_model": "igb"}, USUAL),
    ],
)
def test_what_an_image_asks_for(properties: dict[str, str], devices: Devices) -> None:
    assert image_devices.of(properties) == devices


def test_a_screen_has_the_memory_that_an_image_asks_for_where_its_flavor_allows_it(member: Client) -> None:
    kept = image_devices.KEPT["hw_video_ram"]
    assert kept("8", described(**{"hw_video:ram_max_mb": "16"}))
    assert not kept("9", described(**{"hw_video:ram_max_mb": "16"}))
    assert not kept("8", described())


def test_a_server_has_the_devices_of_its_image_and_takes_them_along(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    asked = image(member, hw_disk_bus="sata", hw_vif_model="e1000", hw_video_model="cirrus")
    network = network_of(member)
    root = {"boot_index": 0, "uuid": asked, "source_type": "image", "destination_type": "local", "tag": "system"}
    server = create(
        member,
        imageRef=asked,
        config_drive=True,
        networks=[{"uuid": network, "tag": "nic"}],
        block_device_mapping_v2=[root],
    )["id"]
    devices = Devices(disk_bus="sata", cdrom_bus="sata", nic_model="e1000", video_model="cirrus")
    assert guest_of(cloud, admin, server).devices == devices
    nic, disk = told(drive_of(cloud, server))["devices"]
    assert (nic["bus"], nic["address"]) == ("pci", "0000:01:01.0")
    assert (disk["bus"], disk["address"], disk["path"]) == ("none", "none", "/dev/sda")
    blocks = json.loads(drive_of(cloud, server)["ec2/latest/meta-data.json"])["block-device-mapping"]
    assert (blocks["ami"], blocks["root"]) == ("sda", "/dev/sda")
    shown = admin.compute("GET", f"/servers/{server}", version=LATEST)["server"]
    assert shown["OS-EXT-SRV-ATTR:root_device_name"] == "/dev/sda"
    for name, count in (("/dev/sda", 1), ("/dev/vda", 0)):
        found = admin.compute("GET", f"/servers?root_device_name={name}&all_tenants=1", version=LATEST)["servers"]
        assert len(found) == count
    source = host_of(admin, server)
    assert admin.action(server, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed")
    assert host_of(admin, server) == other(source)
    assert guest_of(cloud, admin, server).devices == devices


def test_only_a_host_that_offers_them_gets_it(cloud: TestCloud, admin: Client, member: Client) -> None:
    asked = image(member, hw_disk_bus="usb", hw_vif_model="rtl8139")
    with without(cloud, "host2", "COMPUTE_NET_VIF_MODEL_RTL8139"):
        for _ in range(2):
            server = create(member, imageRef=asked)["id"]
            assert host_of(admin, server) == "host1"
        assert admin.action(server, {"os-migrateLive": {"host": "host2", **AUTO}}).status == 202
        assert "host2: IMAGE_PROPERTY_NOT_KEPT (hw_vif_model)" in reasons(admin, server, "live-migration")
        with without(cloud, "host1", "COMPUTE_STORAGE_BUS_USB"):
            refused = ask_for(member, imageRef=asked)["server"]["id"]
            member.wait_for_status(refused, "ERROR")
            assert admin.server(refused)["fault"]["details"] == (
                "NO_VALID_HOST: host1: IMAGE_PROPERTY_NOT_KEPT (hw_disk_bus); "
                "host2: IMAGE_PROPERTY_NOT_KEPT (hw_vif_model)"
            )


def test_a_flavor_may_ask_for_a_host_that_offers_a_device(cloud: TestCloud, admin: Client, member: Client) -> None:
    made = admin.compute("POST", "/flavors", {"flavor": {"name": "f", "vcpus": 1, "ram": 64, "disk": 1}})["flavor"]
    specs = {"extra_specs": {"trait:COMPUTE_STORAGE_BUS_SATA": "required"}}
    assert admin.compute("POST", f"/flavors/{made['id']}/os-extra_specs", specs).status == 200
    with without(cloud, "host1", "COMPUTE_STORAGE_BUS_SATA"):
        assert host_of(admin, create(member, flavorRef=made["id"])["id"]) == "host2"


def test_a_rebuild_changes_the_devices_if_its_host_offers_them(cloud: TestCloud, admin: Client, member: Client) -> None:
    server = create(member)["id"]
    asked = image(member, hw_disk_bus="scsi")
    with without(cloud, host_of(admin, server), "COMPUTE_STORAGE_BUS_SCSI"):
        answer = member.action(server, {"rebuild": {"imageRef": asked}})
        assert (answer.status, "hw_disk_bus" in answer.text) == (400, True), answer.text
    cloud.reconcile()
    assert member.action(server, {"rebuild": {"imageRef": asked}}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert guest_of(cloud, admin, server).devices == Devices(disk_bus="scsi", cdrom_bus="scsi")


def test_it_has_no_screen_where_its_image_says_so(cloud: TestCloud, admin: Client, member: Client) -> None:
    server = create(member, imageRef=image(member, hw_video_model="none"))["id"]
    assert not guest_of(cloud, admin, server).screen
    answer = member.compute(
        "POST", f"/servers/{server}/remote-consoles", {"remote_console": {"protocol": "vnc", "type": "novnc"}}
    )
    assert (answer.status, "Unavailable console type" in answer.text) == (400, True)


def test_it_has_no_more_ports_than_its_firmware_finds(cloud: TestCloud, member: Client) -> None:
    server = create(member, imageRef=image(member, hw_vif_model="e1000e"))["id"]
    network = network_of(member)
    for _ in range(8):
        assert attach(member, server, net_id=network).status == 200
        cloud.idle()
    answer = attach(member, server, net_id=network)
    assert (answer.status, "at most 8 ports" in answer.text) == (400, True)


def test_it_is_not_made_and_not_made_anew_with_more_ports_than_it_can_have(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    networks, asked = [{"uuid": network_of(member)}] * 9, image(member, hw_vif_model="e1000e")
    refused = ask_for(member, imageRef=asked, networks=networks)
    assert (refused.status, "hw_vif_model=e1000e" in refused.text) == (400, True), refused.text
    refused = ask_for(member, networks=networks * 2)
    assert (refused.status, "at most 16 ports" in refused.text) == (400, True), refused.text
    server = create(member, networks=networks)["id"]
    before = member.server(server)
    refused = member.action(server, {"rebuild": {"imageRef": asked}})
    assert (refused.status, "hw_vif_model=e1000e" in refused.text) == (400, True), refused.text
    cloud.idle()
    assert (member.server(server), cloud.guests(host_of(admin, server))[server]) == (before, "running")


@pytest.mark.parametrize("bus", ["virtio", "scsi", "ide"])
def test_a_disk_is_on_no_other_bus_than_the_first_one(member: Client, bus: str) -> None:
    asked = image(member, hw_disk_bus="sata")
    root = {"boot_index": 0, "uuid": asked, "source_type": "image", "destination_type": "local", "disk_bus": bus}
    answer = ask_for(member, imageRef=asked, block_device_mapping_v2=[root])
    assert (answer.status, "disk_bus" in answer.text) == (501, True)
    root["disk_bus"] = "sata"
    blank = {**BLANK, "disk_bus": "sata", "volume_size": 0}
    assert ask_for(member, imageRef=asked, block_device_mapping_v2=[root, blank]).status in (202, 400)


# -- rescue


def rescued_by(cloud: TestCloud, admin: Client, server: str) -> tuple[str, str]:
    assert cloud.embedded.world is not None
    found = cloud.embedded.world.drivers[host_of(admin, server)]._guests[server].rescued_by
    return found.rescue_bus, found.rescue_device


@pytest.mark.parametrize(
    ("properties", "seen_as"),
    [
        ({}, ("", "")),
        ({"hw_disk_bus": "sata"}, ("sata", "")),
        ({"hw_rescue_device": "disk", "hw_rescue_bus": "virtio"}, ("", "disk")),
        ({"hw_rescue_device": "disk", "hw_rescue_bus": "usb"}, ("usb", "disk")),
        ({"hw_rescue_bus": "scsi"}, ("scsi", "disk")),
        ({"hw_rescue_device": "cdrom"}, ("sata", "cdrom")),
        ({"hw_rescue_device": "cdrom", "hw_cdrom_bus": "scsi"}, ("scsi", "cdrom")),
    ],
)
def test_it_is_rescued_from_the_device_that_the_image_asks_for(
    cloud: TestCloud, admin: Client, member: Client, properties: dict[str, str], seen_as: tuple[str, str]
) -> None:
    server = create(member, imageRef=image(member, hw_vif_model="e1000"))["id"]
    rescue(member, server, {"rescue_image_ref": image(member, **properties)})
    assert rescued_by(cloud, admin, server) == seen_as
    assert member.action(server, {"unrescue": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert guest_of(cloud, admin, server).devices == Devices(nic_model="e1000")


@pytest.mark.parametrize(
    ("properties", "status", "words"),
    [
        ({"hw_rescue_device": "floppy"}, 501, "hw_rescue_device=floppy"),
        ({"hw_rescue_device": "tape"}, 400, "hw_rescue_device is tape"),
        ({"hw_rescue_bus": "ide"}, 501, "hw_rescue_bus=ide"),
        ({"hw_rescue_device": "cdrom", "hw_rescue_bus": "usb"}, 501, "hw_rescue_bus=usb"),
        ({"hw_rescue_bus": "carrier"}, 400, "hw_rescue_bus is carrier"),
        ({"hw_disk_bus": "ide"}, 501, "hw_disk_bus=ide"),
        ({"hw_disk_bus": ""}, 400, "hw_disk_bus is"),
        ({"hw_rescue_bus": ""}, 400, "hw_rescue_bus is"),
        ({"hw_rescue_device": ""}, 400, "hw_rescue_device is"),
    ],
)
def test_what_is_not_done_is_refused_and_changes_nothing(
    member: Client, properties: dict[str, str], status: int, words: str
) -> None:
    server = create(member)["id"]
    before = member.server(server)
    answer = member.action(server, {"rescue": {"rescue_image_ref": image(member, **properties)}})
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert member.server(server) == before


def test_it_is_not_rescued_from_a_device_that_its_host_does_not_offer(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    asked = image(member, hw_rescue_bus="usb")
    with without(cloud, host_of(admin, server), "COMPUTE_STORAGE_BUS_USB"):
        answer = member.action(server, {"rescue": {"rescue_image_ref": asked}})
    assert (answer.status, "hw_rescue_bus" in answer.text) == (400, True), answer.text


def test_a_server_of_before_with_a_value_that_is_refused_now_has_usual_devices() -> None:
    assert image_devices.of({"hw_disk_bus": "ide"}) is USUAL
    with pytest.raises(ApiError):
        image_devices.for_rescue(USUAL, {"hw_rescue_bus": "ide"})
