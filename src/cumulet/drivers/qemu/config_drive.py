"""The config drive: user data and metadata as a small read-only ISO 9660 disk, byte-equal wherever it is made."""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct

from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.driver import DriverError, Guest

_SECTOR = 2048
_LABEL = "config-2"
_WHEN = bytes((125, 1, 1, 0, 0, 0, 0))
"""2025-01-01: one date for ever, so that source and destination make the same bytes."""


def documents(guest: Guest) -> dict[str, bytes]:
    """What a guest is told about itself, by name: the same on its config drive and by the metadata service."""
    meta = {"uuid": guest.server_id, "name": guest.name, "hostname": guest.name, "meta": guest.metadata}
    files = {"meta_data.json": json.dumps(meta, sort_keys=True).encode()}
    if guest.user_data is not None:
        try:
            files["user_data"] = base64.b64decode(guest.user_data, validate=True)
        except binascii.Error as wrong:
            raise DriverError("USER_DATA: not base64") from wrong
    return files


def write(guest: Guest, folder: GuestFolder, uid: int | None) -> None:
    """Make it where the guest has something to read on it."""
    if guest.user_data is None and not guest.metadata:
        return
    files = documents(guest)
    new = folder.config_drive.with_name(".config.iso.new")
    with open(new, "wb", opener=lambda path, flags: os.open(path, flags, 0o400)) as file:
        file.write(image(files))
    if uid is not None:
        os.chown(new, uid, uid)
    os.replace(new, folder.config_drive)


def image(files: dict[str, bytes]) -> bytes:
    """An ISO 9660 image with `openstack/latest/<name>` for each file, with Joliet names (guests read those)."""
    # Sectors: 16 primary, 17 Joliet, 18 end, then two path tables per tree, directories of both trees, contents.
    tree = [("", -1), ("openstack", 0), ("latest", 1)]
    primary_tables, joliet_tables, directories = 19, 21, 23
    first_content = directories + 2 * len(tree)
    places: dict[str, tuple[int, int]] = {}
    sector = first_content
    for name, content in files.items():
        places[name] = (sector, len(content))
        sector += max(1, -(-len(content) // _SECTOR))
    out = bytearray(sector * _SECTOR)

    def put(number: int, data: bytes) -> None:
        out[number * _SECTOR : number * _SECTOR + len(data)] = data

    for joliet, tables in ((False, primary_tables), (True, joliet_tables)):
        first = directories + (len(tree) if joliet else 0)
        little, big = _path_tables(tree, first, joliet=joliet)
        put(tables, little)
        put(tables + 1, big)
        for number, (_, parent) in enumerate(tree):
            here, up = first + number, first + max(parent, 0)
            entries = [_entry(b"\0", here, _SECTOR, folder=True), _entry(b"\1", up, _SECTOR, folder=True)]
            children = [
                _entry(_name(name, joliet=joliet, folder=True), first + child, _SECTOR, folder=True)
                for child, (name, owner) in enumerate(tree)
                if owner == number
            ]
            if number == len(tree) - 1:
                children += [
                    _entry(_name(name, joliet=joliet, folder=False), *place, folder=False)
                    for name, place in sorted(places.items())
                ]
            put(here, b"".join(entries + children))
        put(17 if joliet else 16, _descriptor(sector, first, tables, len(little), joliet=joliet))
    put(18, b"\xffCD001\x01")
    for name, content in files.items():
        put(places[name][0], content)
    return bytes(out)


def _name(name: str, *, joliet: bool, folder: bool) -> bytes:
    if joliet:
        return name.encode("utf-16-be")
    short = name.upper().replace("META_DATA.JSON", "META_DAT.JSO").replace("USER_DATA", "USER_DAT")
    return (short if folder else short + (";1" if "." in short else ".;1")).encode()


def _both(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little") + number.to_bytes(size, "big")


def _entry(name: bytes, sector: int, length: int, *, folder: bool) -> bytes:
    size = 33 + len(name) + (1 - len(name) % 2)
    flags = 2 if folder else 0
    fixed = bytes((size, 0)) + _both(sector, 4) + _both(length, 4) + _WHEN + bytes((flags, 0, 0)) + _both(1, 2)
    return (fixed + bytes((len(name),)) + name).ljust(size, b"\0")


def _path_tables(tree: list[tuple[str, int]], first: int, *, joliet: bool) -> tuple[bytes, bytes]:
    tables = []
    for order in ("<", ">"):
        table = b""
        for number, (name, parent) in enumerate(tree):
            encoded = _name(name, joliet=joliet, folder=True) if name else b"\0"
            table += struct.pack(f"{order}BBIH", len(encoded), 0, first + number, max(parent, 0) + 1) + encoded
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
