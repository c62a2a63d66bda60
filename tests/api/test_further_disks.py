"""Ephemeral and swap disks: what a flavor gives, what can be asked for, what becomes of them as the server goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from cumulet.compute import promises
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.testing import Client, JsonObject, TestCloud

from .servers import host_of, image_and_flavor
from .test_guest_metadata import drive_of, told
from .test_resize import resized

BOTH = {"OS-FLV-EXT-DATA:ephemeral": 2, "swap": 64}
ROOT = {"boot_index": 0, "source_type": "image", "destination_type": "local"}
BLANK = {"source_type": "blank", "destination_type": "local"}
SWAP = {**BLANK, "guest_format": "swap"}


def flavor(admin: Client, name: str, **more: object) -> str:
    wanted = {"name": name, "id": name, "vcpus": 1, "ram": 128, "disk": 1, **more}
    made: str = admin.compute("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
    return made


@pytest.fixture
def both(admin: Client) -> str:
    return flavor(admin, "both", **BOTH)


def ask(client: Client, flavor_id: str, *, version: str = "2.90", **more: object) -> Any:
    body = {"name": "s", "networks": "none", **image_and_flavor(client), "flavorRef": flavor_id, **more}
    return client.compute("POST", "/servers", {"server": body}, version=version)


def created(client: Client, flavor_id: str, **more: Any) -> str:
    answer = ask(client, flavor_id, **more)
    assert answer.status == 202, answer.text
    server: str = answer["server"]["id"]
    client.wait_for_status(server, "ACTIVE")
    return server


def mapped(client: Client, *devices: Mapping[str, object], root: Mapping[str, object] | None = None) -> JsonObject:
    image = image_and_flavor(client)["imageRef"]
    return {"block_device_mapping_v2": [{**ROOT, "uuid": image, **(root or {})}, *devices]}


def on_host(cloud: TestCloud, server: str) -> SimulatedGuest:
    world = cloud.embedded.world
    assert world is not None
    return world.drivers[host_of(cloud.persona("admin"), server)]._guests[server]


def disks(cloud: TestCloud, server: str) -> list[tuple[int, int, str, str]]:
    return [(disk.place, disk.size_mib, disk.content, disk.label) for disk in on_host(cloud, server).guest.disks]


EPHEMERAL_AND_SWAP = [(1, 2048, "ext4", "ephemeral0"), (2, 64, "swap", "")]


@pytest.mark.parametrize("disk", [{"OS-FLV-EXT-DATA:ephemeral": 1}, {"swap": 64}])
def test_a_host_that_makes_no_further_disks_is_not_chosen(
    admin: Client, member: Client, monkeypatch: pytest.MonkeyPatch, disk: Mapping[str, object]
) -> None:
    more = flavor(admin, "more", **disk)
    created(member, more)
    monkeypatch.setattr(promises, "FURTHER_DISKS", "nobody's")
    server = ask(member, more)["server"]["id"]
    member.wait_for_status(server, "ERROR")
    assert "EXTRA_SPEC_NOT_KEPT" in admin.server(server)["fault"]["details"]


def test_a_flavor_s_disks_are_made_and_its_guest_is_told_their_names(
    cloud: TestCloud, member: Client, both: str
) -> None:
    server = created(member, both, config_drive=True)
    assert disks(cloud, server) == EPHEMERAL_AND_SWAP
    ec2 = json.loads(drive_of(cloud, server)["ec2/latest/meta-data.json"])
    # The config drive is the second disk.
    names = {"ami": "vda", "root": "/dev/vda", "ephemeral0": "/dev/vdc", "swap": "/dev/vdd"}
    assert ec2["block-device-mapping"] == names


def test_several_can_be_asked_for_with_file_systems_and_tags(cloud: TestCloud, admin: Client, member: Client) -> None:
    roomy = flavor(admin, "roomy", **{"OS-FLV-EXT-DATA:ephemeral": 3})
    asked: list[dict[str, object]] = [
        {**BLANK, "volume_size": 1, "guest_format": "ext3", "tag": "db"},
        {**BLANK, "volume_size": "2"},
    ]
    server = created(member, roomy, config_drive=True, **mapped(member, *asked, root={"tag": "boot"}))
    assert disks(cloud, server) == [(1, 1024, "ext3", "ephemeral0"), (2, 2048, "ext4", "ephemeral1")]
    pci = {"type": "disk", "bus": "pci"}
    assert told(drive_of(cloud, server))["devices"] == [
        {**pci, "address": "0000:00:03.0", "serial": "disk0", "path": "/dev/vda", "tags": ["boot"]},
        {**pci, "address": "0000:00:06.0", "serial": "disk1", "path": "/dev/vdc", "tags": ["db"]},
    ]


def test_less_swap_than_the_flavor_has_can_be_asked_for(cloud: TestCloud, member: Client, both: str) -> None:
    server = created(member, both, **mapped(member, {**SWAP, "volume_size": 32}))
    assert disks(cloud, server) == [(1, 2048, "ext4", "ephemeral0"), (2, 32, "swap", "")]


def test_the_older_form_asks_for_them_too(cloud: TestCloud, member: Client, both: str) -> None:
    old = [{"virtual_name": "ephemeral0", "device_name": "/dev/vdb", "volume_size": 1}, {"no_device": True}]
    server = created(member, both, block_device_mapping=old)
    assert disks(cloud, server) == [(1, 1024, "ext4", "ephemeral0"), (2, 64, "swap", "")]


@pytest.mark.parametrize(
    ("devices", "status", "words"),
    [
        ([{**BLANK, "volume_size": 3}], 400, "Ephemeral disks requested are larger than the instance type allows"),
        ([BLANK, {**BLANK, "volume_size": 1}], 400, "Ephemeral disks requested are larger"),
        ([SWAP, SWAP], 400, "More than one swap drive requested."),
        ([{**SWAP, "volume_size": 65}], 400, "Swap drive requested is larger than instance type allows."),
        ([{**BLANK, "volume_size": 1}] * 2, 400, "more local devices than the limit allows"),
        ([{**BLANK, "guest_format": "ntfs"}], 400, "guest_format ntfs is not one of"),
        ([{**BLANK, "uuid": "x"}], 400, "Invalid device UUID."),
        ([{"source_type": "image", "destination_type": "local"}], 400, "Missing device UUID."),
        ([{**ROOT, "boot_index": 1, "uuid": "x"}], 400, "Mapping image to local is not supported."),
        ([{**BLANK, "boot_index": 2}], 400, "Boot sequence"),
        ([{**BLANK, "boot_index": "1" * 5000}], 400, "boot_index"),
        ([{"source_type": "blank"}], 400, "destination_type"),
        ([{**BLANK, "volume_type": "x"}], 400, "Specifying a volume_type"),
        ([{"source_type": "blank", "destination_type": "volume", "volume_size": 1}], 501, "Volumes"),
        ([{"source_type": "volume", "uuid": "x", "destination_type": "volume"}], 501, "Volumes"),
        ([{**BLANK, "disk_bus": "ide"}], 501, "disk_bus"),
        ([{**BLANK, "device_type": "cdrom"}], 501, "device_type"),
    ],
)
def test_what_is_no_such_disk_is_refused(
    member: Client, both: str, devices: list[Mapping[str, object]], status: int, words: str
) -> None:
    answer = ask(member, both, **mapped(member, *devices))
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert member.compute("GET", "/servers")["servers"] == []


@pytest.mark.parametrize(
    ("device", "status", "words"),
    [({"device_name": "vdb"}, 400, "Unrecognized legacy format."), ({"volume_id": "0" * 32}, 501, "Volumes")],
)
def test_the_older_form_is_refused_too(
    member: Client, both: str, device: Mapping[str, object], status: int, words: str
) -> None:
    answer = ask(member, both, block_device_mapping=[device])
    assert (answer.status, words in answer.text) == (status, True), answer.text


def test_a_first_disk_from_another_image_is_refused(member: Client, both: str) -> None:
    answer = ask(member, both, **mapped(member, root={"uuid": "00000000-0000-4000-8000-000000000000"}))
    assert (answer.status, "another image than imageRef" in answer.text) == (501, True), answer.text


def test_a_flavor_without_them_gives_none(member: Client) -> None:
    plain = image_and_flavor(member)["flavorRef"]
    assert ask(member, plain, **mapped(member, {**SWAP, "volume_size": 1})).status == 400
    assert ask(member, plain, **mapped(member, {**BLANK, "volume_size": 1})).status == 400


def test_their_data_goes_with_a_live_migration_and_is_gone_with_a_rebuild(
    cloud: TestCloud, admin: Client, member: Client, both: str
) -> None:
    server = created(member, both)
    data = on_host(cloud, server).disks
    assert set(data) == {1, 2}
    before = host_of(admin, server)
    assert admin.action(server, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
    cloud.idle()
    assert host_of(admin, server) != before
    assert (on_host(cloud, server).disks, disks(cloud, server)) == (data, EPHEMERAL_AND_SWAP)
    image = member.server(server)["image"]["id"]
    assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
    cloud.idle()
    anew = on_host(cloud, server).disks
    assert disks(cloud, server) == EPHEMERAL_AND_SWAP
    assert not set(anew.values()) & set(data.values())


def test_they_are_none_of_an_image_and_are_made_anew_by_unshelving(cloud: TestCloud, member: Client, both: str) -> None:
    server = created(member, both)
    data = on_host(cloud, server).disks
    assert member.action(server, {"shelve": None}).status == 202
    member.wait_for_status(server, "SHELVED_OFFLOADED")
    (image,) = [one for one in member.request("GET", "/image/v2/images")["images"] if one["name"] == "s-shelved"]
    assert image["virtual_size"] == 1 << 30
    assert member.action(server, {"unshelve": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert disks(cloud, server) == EPHEMERAL_AND_SWAP
    assert not set(on_host(cloud, server).disks.values()) & set(data.values())


def test_a_resize_keeps_the_ephemeral_disk_and_makes_swap_anew(
    cloud: TestCloud, admin: Client, member: Client, both: str
) -> None:
    larger = flavor(admin, "larger", **{"OS-FLV-EXT-DATA:ephemeral": 4, "swap": 128})
    server = created(member, both)
    data = on_host(cloud, server).disks
    resized(member, server, larger)
    assert disks(cloud, server) == [(1, 4096, "ext4", "ephemeral0"), (2, 128, "swap", "")]
    now = on_host(cloud, server).disks
    assert now[1] == data[1]
    assert now[2] != data[2]
    assert member.action(server, {"revertResize": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert (on_host(cloud, server).disks, disks(cloud, server)) == (data, EPHEMERAL_AND_SWAP)


def test_swap_that_was_asked_for_is_never_more_than_the_flavor_has(
    cloud: TestCloud, admin: Client, member: Client, both: str
) -> None:
    server = created(member, both, **mapped(member, {**SWAP, "volume_size": 48}))
    resized(member, server, flavor(admin, "less", **{"OS-FLV-EXT-DATA:ephemeral": 2, "swap": 32}))
    assert disks(cloud, server) == [(1, 2048, "ext4", "ephemeral0"), (2, 32, "swap", "")]


def test_a_resize_to_less_is_undone(cloud: TestCloud, admin: Client, member: Client, both: str) -> None:
    smaller = flavor(admin, "smaller", **{"OS-FLV-EXT-DATA:ephemeral": 1, "swap": 64})
    server = created(member, both)
    assert member.action(server, {"resize": {"flavorRef": smaller}}).status == 202
    cloud.idle()
    assert member.server(server)["status"] == "ACTIVE"
    assert disks(cloud, server) == EPHEMERAL_AND_SWAP
    (last, *_) = admin.compute("GET", f"/servers/{server}/migrations")["migrations"] or [None]
    assert last is None
    action = admin.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("resize", "Error")


@pytest.mark.parametrize(("room", "fits"), [(0, False), (1, False), (2, True), (3, True)])
def test_disks_that_were_asked_for_keep_their_sizes_and_have_room_in_the_new_flavor(
    cloud: TestCloud, admin: Client, member: Client, both: str, room: int, fits: bool
) -> None:
    server = created(member, both, **mapped(member, {**BLANK, "volume_size": 2}))
    before = disks(cloud, server)
    assert before[0] == (1, 2048, "ext4", "ephemeral0")
    new = flavor(admin, "new", **{"OS-FLV-EXT-DATA:ephemeral": room, "swap": 64})
    assert member.action(server, {"resize": {"flavorRef": new}}).status == 202
    cloud.idle()
    assert member.server(server)["status"] == ("VERIFY_RESIZE" if fits else "ACTIVE")
    assert disks(cloud, server) == before
