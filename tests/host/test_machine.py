"""A machine is counted once, however many hosts share it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.host.machine import Capacity, capacity, part


@pytest.mark.parametrize("hosts", [1, 2, 3, 7, 64])
def test_hosts_offer_together_no_more_memory_and_disk_than_their_machine_has(hosts: int) -> None:
    whole = Capacity(vcpus=8, memory_mib=24_000, disk_gib=101)
    each = part(whole, hosts)
    assert whole.memory_mib - hosts < each.memory_mib * hosts <= whole.memory_mib
    assert whole.disk_gib - hosts < each.disk_gib * hosts <= whole.disk_gib
    assert each.vcpus == max(1, 8 // hosts)


def test_one_host_offers_all_of_it(tmp_path: Path) -> None:
    whole = capacity(tmp_path)
    assert part(whole, 1) == whole
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert whole.memory_mib == total_kib // 1024
