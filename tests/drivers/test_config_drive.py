"""The config drive is a disk that a guest can read: read back here by the standard, not by the code that wrote it."""

from __future__ import annotations

import json

import msgspec
import pytest

from cumulet.drivers.qemu.config_drive import image
from cumulet.host.documents import documents
from cumulet.host.driver import DriveFile, DriverError, Guest, Nic
from cumulet.host.telling import EC2
from cumulet.host.wiring import Network, Port, Subnet, Wiring

SECTOR = 2048
FILES = {
    "openstack/latest/meta_data.json": b'{"name": "one"}',
    "openstack/latest/user_data": b"u" * (3 * SECTOR + 1),
    "openstack/2012-08-10/meta_data.json": b'{"name": "one"}',
    "openstack/latest/empty": b"",
    "ec2/2009-04-04/meta-data.json": b"{}",
}


def read_back(disk: bytes, *, joliet: bool) -> dict[str, bytes]:
    """Every file by its path, from the volume descriptor's root down."""
    descriptor = disk[(17 if joliet else 16) * SECTOR :][:SECTOR]
    assert descriptor[1:6] == b"CD001"
    found: dict[str, bytes] = {}

    def folder(entry: bytes, path: str) -> None:
        content = extent(entry)
        at = 2 * content[0]  # Itself and its parent come first; both entries are as long.
        while at < len(content) and content[at]:
            child = content[at : at + content[at]]
            name = child[33 : 33 + child[32]].decode("utf-16-be" if joliet else "ascii")
            if child[25] & 2:
                folder(child, f"{path}{name}/")
            else:
                found[path + name] = extent(child)
            at += content[at]

    def extent(entry: bytes) -> bytes:
        sector, length = int.from_bytes(entry[2:6], "little"), int.from_bytes(entry[10:14], "little")
        return disk[sector * SECTOR :][:length]

    folder(descriptor[156:190], "")
    return found


def test_files_are_found_by_their_names() -> None:
    assert read_back(image(FILES), joliet=True) == FILES


def test_a_guest_without_joliet_finds_them_too() -> None:
    names = {
        path.removesuffix(";1").removesuffix("."): content
        for path, content in read_back(image(FILES), joliet=False).items()
    }
    assert names == {path.upper(): content for path, content in FILES.items()}


def test_it_is_the_same_wherever_it_is_made_and_shares_what_is_alike() -> None:
    shuffled = dict(sorted(FILES.items(), reverse=True))
    assert read_back(image(shuffled), joliet=True) == FILES
    assert image(FILES) == image(dict(FILES))
    alike = {f"openstack/{n}/user_data": b"x" * 65_536 for n in range(10)}
    assert len(image(alike)) < 2 * 65_536 + 100 * SECTOR


def test_its_label_is_what_guests_look_for() -> None:
    assert image(FILES)[16 * SECTOR + 40 :][:8] == b"config-2"


def test_a_tree_that_does_not_fit_is_refused() -> None:
    with pytest.raises(DriverError, match="CONFIG_DRIVE"):
        image({f"openstack/latest/file-{n}": b"" for n in range(100)})


def of_guest(*nics: Nic, devices: list[dict[str, object]] | None) -> list[dict[str, object]] | None:
    """The devices that the metadata service tells, of a guest with these NICs and a drive with these devices."""
    meta = {"uuid": "u", "admin_pass": "secret"} | ({} if devices is None else {"devices": devices})
    drive = DriveFile(paths=("openstack/latest/meta_data.json",), content=json.dumps(meta).encode())
    guest = Guest(
        server_id="u", name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=nics, config_drive=(drive,)
    )
    told = json.loads(documents(guest, None)["meta_data.json"])
    assert "admin_pass" not in told
    found: list[dict[str, object]] | None = told.get("devices")
    return found


def test_what_ec2_calls_meta_data_has_the_address_of_the_nic_that_is_there() -> None:
    ec2 = {"ami-id": "ami-1", "local-ipv4": "10.0.0.1", "public-ipv4": "172.24.4.9"}
    files = {"openstack/latest/meta_data.json": {"uuid": "u"}, "ec2/latest/meta-data.json": ec2}
    drive = tuple(DriveFile(paths=(path,), content=json.dumps(content).encode()) for path, content in files.items())
    nics = (msgspec.structs.replace(nic(1), addresses=("fd00::5/64", "10.7.0.5/24")),)
    guest = Guest(
        server_id="u", name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=nics, config_drive=drive
    )
    assert json.loads(documents(guest, None)[EC2]) == {"ami-id": "ami-1", "local-ipv4": "10.7.0.5"}


def nic(number: int, tag: str = "") -> Nic:
    return Nic(port_id=f"p{number}", network_id="n", mac=f"fa:16:3e:00:00:0{number}", slot=number, tag=tag)


def test_the_metadata_service_tells_of_ports_that_came_and_went_since_the_drive_was_made() -> None:
    first: dict[str, object] = {"type": "nic", "mac": nic(0).mac, "bus": "pci", "address": "0000:01:00.0"}
    first |= {"vf_trusted": False, "tags": ["front"]}
    disk: dict[str, object] = {"type": "disk", "bus": "pci", "address": "0000:00:06.0", "tags": ["data"]}
    attached = {"type": "nic", "mac": nic(2).mac, "bus": "pci", "address": "0000:03:00.0", "vf_trusted": False}
    drive = [first, disk]
    assert of_guest(nic(0), devices=drive) == [first, disk]
    assert of_guest(nic(0), nic(2, "back"), devices=drive) == [first, {**attached, "tags": ["back"]}, disk]
    assert of_guest(nic(0), nic(2), devices=drive) == [first, attached, disk]
    assert of_guest(nic(2, "back"), devices=drive) == [{**attached, "tags": ["back"]}, disk], "the first was detached"
    again = [{**first, "address": "0000:03:00.0"}, disk]
    assert of_guest(msgspec.structs.replace(nic(0, "front"), slot=2), devices=drive) == again, "it has another address"
    assert of_guest(nic(0, "back"), devices=drive) == [{**first, "tags": ["back"]}, disk], "it has another tag"
    twin = msgspec.structs.replace(nic(2), mac=nic(0).mac)
    both = [first, {**attached, "mac": nic(0).mac}, disk]
    assert of_guest(nic(0), twin, devices=drive) == both, "ports of two networks may have one MAC address"
    assert of_guest(nic(0), nic(2, "back"), devices=None) is None, "the drive of an older guest tells of no devices"


def subnet(number: int) -> Subnet:
    cidr, gateway = f"10.{number}.0.0/24", f"10.{number}.0.1"
    return Subnet(
        id=f"s{number}",
        cidr=cidr,
        gateway=gateway,
        dhcp=True,
        ra_mode=None,
        address_mode=None,
        dns_servers=(),
        routes=(),
    )


def wired(*numbers: int) -> Wiring:
    """A host with port `pN` on network `nN` for each of the numbers."""
    ports = [
        Port(
            id=f"p{n}",
            network_id=f"n{n}",
            mac=nic(n).mac,
            addresses=(f"10.{n}.0.5",),
            up=True,
            active=True,
            secured=True,
            pairs=(),
            groups=(),
            hostname="",
        )
        for n in numbers
    ]
    networks = [
        Network(id=f"n{n}", kind="vxlan", vni=n, mtu=1450, dns_domain="", subnets=(subnet(n),), peers=(), remotes=())
        for n in numbers
    ]
    return Wiring(host="host1", networks=tuple(networks), ports=tuple(ports))


def test_network_data_of_the_metadata_service_follows_the_nics_and_the_drive_stays() -> None:
    on_drive = {"links": [{"id": "tapp0"}]}
    contents = {"meta_data.json": {"uuid": "u"}, "network_data.json": on_drive}
    drive = tuple(
        DriveFile(paths=(f"openstack/latest/{name}",), content=json.dumps(content).encode())
        for name, content in contents.items()
    )

    def told(wiring: Wiring | None, *nics: Nic) -> dict[str, list[dict[str, object]]]:
        guest = Guest(
            server_id="u", name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=nics, config_drive=drive
        )
        found: dict[str, list[dict[str, object]]] = json.loads(documents(guest, wiring)["network_data.json"])
        return found

    both = told(wired(1, 2), nic(1), nic(2))
    assert [(link["id"], link["ethernet_mac_address"], link["mtu"]) for link in both["links"]] == [
        ("tapp1", nic(1).mac, 1450),
        ("tapp2", nic(2).mac, 1450),
    ]
    assert [(one["id"], one["network_id"], one["type"]) for one in both["networks"]] == [
        ("network0", "n1", "ipv4_dhcp"),
        ("network1", "n2", "ipv4_dhcp"),
    ]
    assert [link["id"] for link in told(wired(1, 2), nic(2))["links"]] == ["tapp2"], "the first was detached"
    assert told(wired(1, 2)) == {}
    assert told(wired(1), nic(1), nic(2)) == on_drive, "one of its ports is not wired here yet"
    assert told(None, nic(1)) == on_drive


def test_user_data_of_an_old_description_that_is_not_base64_is_refused() -> None:
    guest = Guest(
        server_id="u", name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=(), user_data="no base64!"
    )
    with pytest.raises(DriverError, match="USER_DATA: not base64"):
        documents(guest, None)
