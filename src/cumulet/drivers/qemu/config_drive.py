"""The config drive: what a guest is told, as a small read-only ISO 9660 disk, byte-equal wherever it is made."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.documents import files_on_drive
from cumulet.host.driver import DriverError, Guest

_SECTOR = 2048
_LABEL = "config-2"
_WHEN = bytes((125, 1, 1, 0, 0, 0, 0))
"""2025-01-01: one date for ever, so that source and destination make the same bytes."""


def write(guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Make it, if the guest's description has anything for it."""
    if not guest.config_drive and guest.user_data is None and not guest.metadata:
        return
    guest_files.write(folder, guest_files.CONFIG_DRIVE, image(files_on_drive(guest)), mode=0o400, uid=uid)


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
