"""A simulated host's fence is found again by the next process, whenever the last one was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.agent.fence import NEVER_SEEN, Mark
from cumulet.agent.simulated_fence import SimulatedFence


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "host1" / "fence.txt"


def test_the_last_mark_of_each_guest_is_found_again(file: Path) -> None:
    fence = SimulatedFence(file)
    assert fence.mark("a") == NEVER_SEEN
    fence.set_mark("a", Mark(1, False))
    fence.set_mark("b", Mark(7, False))
    fence.set_mark("a", Mark(3, True))
    for again in (SimulatedFence(file), SimulatedFence(file)):
        assert (again.mark("a"), again.mark("b")) == (Mark(3, True), Mark(7, False))
        assert again.known() == {"a": 3, "b": 7}


def test_a_line_that_was_cut_short_was_never_accepted(file: Path) -> None:
    fence = SimulatedFence(file)
    fence.set_mark("a", Mark(1, False))
    with open(file, "a") as cut:
        cut.write("a 1")  # of 12
    again = SimulatedFence(file)
    assert again.mark("a") == Mark(1, False)
    again.set_mark("a", Mark(2, False))
    assert SimulatedFence(file).mark("a") == Mark(2, False)


def test_what_was_overtaken_is_dropped_at_the_next_start(file: Path) -> None:
    fence = SimulatedFence(file)
    for generation in range(1, 100):
        fence.set_mark("a", Mark(generation, False))
    SimulatedFence(file)
    assert file.read_text() == "a 99\n"
