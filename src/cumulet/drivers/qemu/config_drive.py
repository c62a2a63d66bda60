"""The config drive: what a guest is told, as a small read-only ISO 9660 disk, byte-equal wherever it is made."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cumulet.drivers.linux_network.metadata import EC2
from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host import network_data, nics, pci
from cumulet.host.driver import DriverError, Guest, Nic
from cumulet.host.wiring import Wiring

_SECTOR = 2048
_LABEL = "config-2"
_WHEN = bytes((125, 1, 1, 0, 0, 0, 0))
"""2025-01-01: one date for ever, so that source and destination make the same bytes."""


LATEST = "openstack/latest/"
_EC2_ON_DRIVE = "ec2/latest/meta-data.json"


def documents(guest: Guest, wiring: Wiring | None) -> dict[str, bytes]:
    """The files of the metadata service, by name: those of the config drive without the password, as with Nova.

    `devices` and `network_data.json` follow the NICs that have come and gone since the drive was made, as in Nova's
    service. `wiring`: what is in force on this host; without one for all of the guest's ports, networks are told as
    they were. What EC2 calls `meta-data` is one document, `metadata.EC2`.
    """
    on_drive = _files(guest)
    files = {path.removeprefix(LATEST): found for path, found in on_drive.items() if path.startswith(LATEST)}
    if _EC2_ON_DRIVE in on_drive:
        files[EC2] = json.dumps(_ec2(json.loads(on_drive[_EC2_ON_DRIVE]), guest), sort_keys=True).encode()
    told = json.loads(files["meta_data.json"])
    told.pop("admin_pass", None)
    if "devices" in told:
        told["devices"] = _devices(told["devices"], guest)
    files |= {"meta_data.json": json.dumps(told, sort_keys=True).encode()}
    networks = None if wiring is None else network_data.of_guest(guest, wiring)
    if networks is not None and "network_data.json" in files:
        files["network_data.json"] = json.dumps(networks, sort_keys=True).encode()
    return files


def _ec2(on_drive: dict[str, object], guest: Guest) -> dict[str, object]:
    """As on the drive, but for addresses: a NIC may have come, and floating IPs come and go unheard of by this host."""
    told = {name: value for name, value in on_drive.items() if name != "public-ipv4"}
    addresses = [address.partition("/")[0] for nic in nics.placed(guest) for address in nic.addresses]
    return told | {"local-ipv4": next((address for address in addresses if ":" not in address), "")}


def _devices(on_drive: list[dict[str, object]], guest: Guest) -> list[dict[str, object]]:
    """The devices on the drive without those that were detached, and the NICs that were attached, before the disks.

    A port that was detached and attached again may have another address now, or another tag.
    """
    present: dict[tuple[object, object], Nic] = {
        (nic.mac, pci.nic_address(nic.slot or 0, guest.devices.nic_model)): nic for nic in nics.placed(guest)
    }
    kept: dict[tuple[object, object], dict[str, object]] = {}
    for device in on_drive:
        place = (device.get("mac"), device.get("address"))
        nic = present.get(place)
        if nic is not None and (not nic.tag or device.get("tags") == [nic.tag]):
            kept[place] = device
    attached: list[dict[str, object]] = [
        {"type": "nic", "mac": place[0], "bus": "pci", "address": place[1], "vf_trusted": False}
        | ({"tags": [nic.tag]} if nic.tag else {})
        for place, nic in present.items()
        if place not in kept
    ]
    return [*kept.values(), *attached, *(device for device in on_drive if device["type"] != "nic")]


def write(guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Make it, if the guest's description has anything for it."""
    if not guest.config_drive and guest.user_data is None and not guest.metadata:
        return
    guest_files.write(folder, guest_files.CONFIG_DRIVE, image(_files(guest)), mode=0o400, uid=uid)


def _files(guest: Guest) -> dict[str, bytes]:
    """Content by path. Descriptions of older guests have no `config_drive`: theirs are made from the other fields."""
    if guest.config_drive:
        return {path: file.content for file in guest.config_drive for path in file.paths}
    meta = {"uuid": guest.server_id, "name": guest.name, "hostname": guest.name, "meta": guest.metadata}
    files = {f"{LATEST}meta_data.json": json.dumps(meta, sort_keys=True).encode()}
    if guest.user_data is not None:
        try:
            files[f"{LATEST}user_data"] = base64.b64decode(guest.user_data, validate=True)
        except binascii.Error as wrong:
            raise DriverError("USER_DATA: not base64") from wrong
    return files


@dataclass(slots=True)
class _Folder:
    """A directory of the disk; the path tables number them from 1, the root first."""

    name: str
    parent: int
    folders: list[int] = field(default_factory=list)
    files: list[tuple[str, bytes]] = field(default_factory=list)


def image(files: Mapping[str, bytes]) -> bytes:
    """An ISO 9660 image of `files` by their paths, with Joliet names (guests read those).

    Files with the same content share it. Raises `DriverError` for a tree that does not fit the few sectors it has.
    """
    # Sectors: 16 primary, 17 Joliet, 18 end, then two path tables per tree, directories of both trees, contents.
    tree = _tree(files)
    primary_tables, joliet_tables, directories = 19, 21, 23
    places: dict[bytes, int] = {}
    sector = directories + 2 * len(tree)
    for content in files.values():
        if content not in places:
            places[content] = sector
            sector += max(1, -(-len(content) // _SECTOR))
    out = bytearray(sector * _SECTOR)

    def put(number: int, data: bytes) -> None:
        out[number * _SECTOR : number * _SECTOR + len(data)] = data

    for joliet, tables in ((False, primary_tables), (True, joliet_tables)):
        first = directories + (len(tree) if joliet else 0)
        little, big = _path_tables(tree, first, joliet=joliet)
        put(tables, _one_sector(little))
        put(tables + 1, _one_sector(big))
        for number, folder in enumerate(tree):
            put(first + number, _one_sector(_directory(tree, folder, first + number, first, places, joliet=joliet)))
        put(17 if joliet else 16, _descriptor(sector, first, tables, len(little), joliet=joliet))
    put(18, b"\xffCD001\x01")
    for content, number in places.items():
        put(number, content)
    return bytes(out)


def _one_sector(data: bytes) -> bytes:
    if len(data) > _SECTOR:
        raise DriverError("CONFIG_DRIVE: more files or folders than it has room for")
    return data


def _tree(files: Mapping[str, bytes]) -> list[_Folder]:
    """Folders level by level, in each in the order of their parents and names: as the path tables want them."""
    paths = {tuple(path.split("/")[:depth]) for path in files for depth in range(path.count("/") + 1)}
    numbers: dict[tuple[str, ...], int] = {}
    tree: list[_Folder] = []
    for path in sorted(paths, key=lambda path: (len(path), path)):
        numbers[path] = len(tree)
        if path:
            tree[numbers[path[:-1]]].folders.append(len(tree))
        tree.append(_Folder(name=path[-1] if path else "", parent=numbers[path[:-1]] if path else 0))
    for file in sorted(files):
        *parents, name = file.split("/")
        tree[numbers[tuple(parents)]].files.append((name, files[file]))
    return tree


def _directory(
    tree: list[_Folder], folder: _Folder, here: int, first: int, places: Mapping[bytes, int], *, joliet: bool
) -> bytes:
    entries = [_entry(b"\0", here, _SECTOR, folder=True), _entry(b"\1", first + folder.parent, _SECTOR, folder=True)]
    children = [
        (_name(tree[child].name, joliet=joliet, folder=True), first + child, _SECTOR, True) for child in folder.folders
    ] + [
        (_name(name, joliet=joliet, folder=False), places[content], len(content), False)
        for name, content in folder.files
    ]
    return b"".join(entries + [_entry(name, *place, folder=is_folder) for name, *place, is_folder in sorted(children)])


def _name(name: str, *, joliet: bool, folder: bool) -> bytes:
    """Without Joliet: level 2 of ISO 9660, upper case, files with a version; Linux shows them as they were."""
    if joliet:
        return name.encode("utf-16-be")
    return (name.upper() if folder else f"{name.upper()}{'' if '.' in name else '.'};1").encode()


def _both(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def _entry(name: bytes, sector: int, length: int, *, folder: bool) -> bytes:
    size = 33 + len(name) + (1 - len(name) % 2)
    flags = 2 if folder else 0
    fixed = bytes((size, 0)) + _both(sector, 4) + _both(length, 4) + _WHEN + bytes((flags, 0, 0)) + _both(1, 2)
    return (fixed + bytes((len(name),)) + name).ljust(size, b"\0")


def _path_tables(tree: list[_Folder], first: int, *, joliet: bool) -> tuple[bytes, bytes]:
    tables = []
    for order in ("<", ">"):
        table = b""
        for number, folder in enumerate(tree):
            encoded = _name(folder.name, joliet=joliet, folder=True) if folder.name else b"\0"
            table += struct.pack(f"{order}BBIH", len(encoded), 0, first + number, folder.parent + 1) + encoded
            table += b"\0" * (len(encoded) % 2)
        tables.append(table)
    return tables[0], tables[1]


def _descriptor(sectors: int, first: int, tables: int, table_size: int, *, joliet: bool) -> bytes:
    def text(value: str, size: int) -> bytes:
        encoded = value.encode("utf-16-be" if joliet else "ascii")
        return encoded + (b"\0 " * size if joliet else b" " * size)[: size - len(encoded)]

    epoch = b"2025010100000000\0"
    return b"".join(
        (
            b"\x02CD001\x01\0" if joliet else b"\x01CD001\x01\0",
            text("", 32),
            text(_LABEL, 32),
            bytes(8),
            _both(sectors, 4),
            b"%/E".ljust(32, b"\0") if joliet else bytes(32),
            _both(1, 2) + _both(1, 2) + _both(_SECTOR, 2) + _both(table_size, 4),
            tables.to_bytes(4, "little") + bytes(4) + (tables + 1).to_bytes(4, "big") + bytes(4),
            _entry(b"\0", first, _SECTOR, folder=True),
            text("", 128) + text("", 128) + text("", 128) + text("CUMULET", 128),
            text("", 37) + text("", 37) + text("", 37),
            epoch + epoch + b"0" * 16 + b"\0" + epoch,
            b"\x01",
        )
    )
