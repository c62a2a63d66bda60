"""How a run of the tests begins: those that take long first, in each process of pytest-xdist."""

from __future__ import annotations

import gc

import pytest

from tests.conftest import LONG, long_ones_first

SHORT = [f"api/{number}" for number in range(50)]
FEW = [f"{name}/{number}" for name in reversed(LONG) for number in range(5)]


def _folder(item: str) -> str:
    return item.split("/")[0]


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_each_process_begins_with_a_folder_of_long_tests(processes: int) -> None:
    ordered = long_ones_first([*SHORT[:30], *FEW, *SHORT[30:]], _folder, processes)
    assert sorted(ordered) == sorted([*SHORT, *FEW])
    parts, left = [], ordered
    for number in range(processes):  # as xdist.scheduler.worksteal deals them
        size = len(left) // (processes - number)
        parts.append(left[:size])
        left = left[size:]
    assert [_folder(part[0]) for part in parts] == [*LONG, "api"][:processes]
    for part in parts:
        folders = [_folder(item) in LONG for item in part]
        assert folders == sorted(folders, reverse=True)


def test_no_test_is_lost_where_there_are_few_short_ones() -> None:
    ordered = long_ones_first(["api/1", *FEW, *(f"{LONG[0]}/{number}" for number in range(5, 50))], _folder, 2)
    assert len(ordered) == len(set(ordered)) == 1 + len(FEW) + 45
    assert ordered[-1] == "api/1"


def test_the_garbage_collector_passes_over_what_was_collected(request: pytest.FixtureRequest) -> None:
    assert gc.is_tracked(request.node)
    assert not any(found is request.node for found in gc.get_objects())
