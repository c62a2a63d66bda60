"""Which guests get a little more memory than their flavor says, so that none of it is lost in a live move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cumulet.drivers.qemu.life import frozen
from cumulet.host.driver import Guest
from tests.drivers.qemu_host import qemu_host

NEW = Guest(server_id="a", name="a", vcpus=1, memory_mib=64, disk_gib=1, image=None)


@pytest.mark.parametrize(
    ("accelerator", "version", "uneven"),
    [
        ("tcg", (7, 2, 22), True),
        ("tcg", (8, 2, 99), True),
        ("tcg", (9, 0, 0), False),
        ("kvm", (7, 2, 22), False),
    ],
)
def test_it_is_those_that_are_emulated_by_a_qemu_that_needs_it(
    tmp_path: Path, accelerator: str, version: tuple[int, int, int], uneven: bool
) -> None:
    host = qemu_host(tmp_path)
    host.facts = replace(host.facts, accelerator=accelerator, version=version)
    assert frozen(host, NEW).uneven_memory is uneven
    assert frozen(host, frozen(host, NEW)).uneven_memory is uneven


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_a_guest_that_was_made_keeps_the_memory_that_it_has(tmp_path: Path, accelerator: str, uneven: bool) -> None:
    host = qemu_host(tmp_path)
    host.facts = replace(host.facts, accelerator=accelerator)
    made = msgspec.structs.replace(NEW, machine_type="pc-q35-7.2", cpu_model="qemu64", uneven_memory=uneven)
    assert frozen(host, made).uneven_memory is uneven
