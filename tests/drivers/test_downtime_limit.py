"""How long a guest may stand still at the end of a copy: as briefly as its memory allows, up to the limit."""

from __future__ import annotations

import pytest

from cumulet.drivers.qemu.live_migration_progress import downtime_limit_ms
from cumulet.host.driver import MigrationParameters


def limits(limit_ms: int, rounds: int, *, at_once: bool = False) -> list[int]:
    parameters = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=limit_ms, copy_disk=True)
    return [downtime_limit_ms(parameters, rounds=number, at_once=at_once) for number in range(rounds)]


def test_the_limit_is_low_at_first_and_doubled_with_each_round_that_does_not_do() -> None:
    assert limits(300, 9) == [37, 37, 37, 37, 75, 150, 300, 300, 300]


@pytest.mark.parametrize("limit_ms", [1, 7, 60_000, 2_000_000])
def test_no_limit_is_above_the_one_that_was_asked_for_and_the_last_one_is_that(limit_ms: int) -> None:
    seen = limits(limit_ms, 40)
    assert seen == sorted(seen)
    assert seen[0] >= 1
    assert seen[-1] == limit_ms


def test_a_guest_that_is_forced_stands_still_for_as_long_as_it_takes() -> None:
    parameters = MigrationParameters(bandwidth_mib_s=1024, downtime_limit_ms=1, copy_disk=True)
    for at_once in (False, True):
        assert downtime_limit_ms(parameters, rounds=1, at_once=at_once, forced=True) > 1_000_000


def test_a_guest_that_loses_memory_with_each_round_has_the_whole_limit_from_the_first_round_on() -> None:
    assert limits(300, 9, at_once=True) == [300] * 9
