"""The config drive is a disk that a guest can read: read back here by the standard, not by the code that wrote it."""

from __future__ import annotations

import pytest

from cumulet.drivers.qemu.config_drive import image
from cumulet.host.driver import DriverError

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
    names = {path.removesuffix(";1").removesuffix("."): content for path, content in
             read_back(image(FILES), joliet=False).items()}  # fmt: skip
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
