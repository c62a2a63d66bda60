"""A host's fence is found again by the next process, whenever the last one was killed, and only ever rises."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import NEVER_SEEN, Fence, FileFence, Mark, MemoryFence
from cumulet.agent.simulated_fence import SimulatedFence
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.host.driver import Driver, Guest
from cumulet.host.wiring import Group, Wiring
from cumulet.settings import Settings

Open = Callable[[Path], Fence]
FENCES: tuple[Open, ...] = (FileFence, SimulatedFence)
GROUP = Group(id="g", stateful=True, rules=(), members=())
MARKS = [Mark(generation, step) for generation in (3, 4) for step in (0, 7)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "host1" / "fence"


@pytest.mark.parametrize("opened", FENCES)
def test_the_last_mark_of_each_guest_is_found_again_and_again(place: Path, opened: Open) -> None:
    fence = opened(place)
    assert fence.mark("a") == NEVER_SEEN
    fence.set_mark("a", Mark(1, 4))
    fence.set_mark("b", Mark(7, 0))
    fence.set_mark("a", Mark(3, 12))
    for again in (fence, opened(place), opened(place)):
        assert (again.mark("a"), again.mark("b")) == (Mark(3, 12), Mark(7, 0))


@pytest.mark.parametrize("mark", [NEVER_SEEN, *MARKS])
def test_a_mark_is_read_as_it_was_written(mark: Mark) -> None:
    assert Mark.parse(mark.text) == mark


def test_a_mark_from_before_steps_were_counted_is_read() -> None:
    assert (Mark.parse("5"), Mark.parse("5 closed")) == (Mark(5, 0), Mark(5, 0))


def test_a_line_that_was_cut_short_was_never_accepted(place: Path) -> None:
    fence = SimulatedFence(place)
    fence.set_mark("a", Mark(1, 4))
    with open(place, "a") as cut:
        cut.write("a 1")  # of 12
    again = SimulatedFence(place)
    assert again.mark("a") == Mark(1, 4)
    again.set_mark("a", Mark(2, 4))
    assert SimulatedFence(place).mark("a") == Mark(2, 4)


def test_a_file_that_was_cut_short_was_never_accepted(place: Path) -> None:
    FileFence(place).set_mark("a", Mark(1, 4))
    (place / ".a.new").write_text("1")  # of 12: it is not yet where it counts
    again = FileFence(place)
    assert (again.mark("a"), again.mark(".a.new")) == (Mark(1, 4), NEVER_SEEN)


def test_what_was_overtaken_is_dropped_at_the_next_start(place: Path) -> None:
    fence = SimulatedFence(place)
    for generation in range(1, 100):
        fence.set_mark("a", Mark(generation, 4))
    SimulatedFence(place)
    assert place.read_text() == "a 99/4\n"


class Guests:
    """What an agent does, in words."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def destroy(self, server_id: str) -> None:
        self.done.append("destroy")

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        self.done.append("stop")


def destroy(mark: Mark) -> m.Command[None]:
    return m.Destroy(server_id="a", operation_id="o", generation=mark.generation, step=mark.step)


def stop(mark: Mark) -> m.Command[None]:
    return m.Stop(server_id="a", operation_id="o", generation=mark.generation, step=mark.step, grace_seconds=0.0)


@pytest.mark.parametrize("opened", FENCES)
@pytest.mark.parametrize(("before", "now"), list(itertools.product(MARKS, repeat=2)))
@pytest.mark.parametrize("say", [destroy, stop])
def test_what_is_older_than_what_was_accepted_is_refused_also_by_the_next_agents(
    place: Path, opened: Open, before: Mark, now: Mark, say: Callable[[Mark], m.Command[None]]
) -> None:
    """Older: of an earlier generation, or an earlier step of the same. The same once more is accepted."""

    def agent() -> tuple[Agent, Guests]:
        guests = Guests()
        return Agent(name="host1", driver=cast("Driver", guests), fence=opened(place)), guests

    first, _ = agent()
    asyncio.run(first.handle(destroy(before)))
    older = now.generation < before.generation or (now.generation == before.generation and now.step < before.step)
    for _ in range(2):
        following, guests = agent()
        if older:
            with pytest.raises(m.StaleGeneration):
                asyncio.run(following.handle(say(now)))
        else:
            asyncio.run(following.handle(say(now)))
        assert guests.done == ([] if older else [say.__name__])
        assert opened(place).mark("a") == (before if older else now)


@pytest.mark.parametrize("opened", [FileFence, lambda _: MemoryFence()])
@pytest.mark.parametrize("marks", [20, 21, 40])
def test_of_too_many_marks_the_oldest_half_goes_but_those_of_its_guests_stay(
    place: Path, opened: Open, marks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cumulet.agent.fence.MOST_MARKS", 20)
    driver = SimulatedDriver(
        name="host1",
        world=World(),
        clock=SystemClock(),
        settings=Settings(state_dir=place, database_url="sqlite://"),
        directory=None,
    )
    fence = opened(place)
    agent = Agent(name="host1", driver=driver, fence=fence)
    description = Guest(server_id="0", name="s", vcpus=1, memory_mib=64, disk_gib=1, image=None)
    asyncio.run(agent.handle(m.Create(server_id="0", operation_id="o", generation=9, step=1, guest=description)))
    for number in range(1, marks):
        fence.set_mark(str(number), Mark(1, 1))
    fence.set_mark("1", Mark(2, 1))
    assert [report.generation for report in asyncio.run(agent.guests())] == [9]
    left = {number for number in range(marks) if fence.mark(str(number)) != NEVER_SEEN}
    assert left == (set(range(20)) if marks == 20 else {0, 1, *range(marks - 8, marks)})
    if opened is FileFence:
        assert {int(path.name) for path in place.iterdir()} == left
        assert FileFence(place).mark("0") == Mark(9, 1)


class CountingFence(MemoryFence):
    """Counts what it would write to a disk."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def set_mark(self, server_id: str, mark: Mark) -> None:
        self.written += 1
        super().set_mark(server_id, mark)


def test_a_step_that_is_repeated_writes_nothing_to_the_disk() -> None:
    fence = CountingFence()
    agent = Agent(name="host1", driver=cast("Driver", Guests()), fence=fence)
    for mark, written in ((Mark(3, 7), 1), (Mark(3, 7), 1), (Mark(3, 8), 2), (Mark(3, 8), 2), (Mark(4, 0), 3)):
        asyncio.run(agent.handle(destroy(mark)))
        assert fence.written == written


def test_the_very_first_step_for_a_guest_is_accepted() -> None:
    guests = Guests()
    agent = Agent(name="host1", driver=cast("Driver", guests), fence=MemoryFence())
    asyncio.run(agent.handle(destroy(Mark(0, 0))))
    assert guests.done == ["destroy"]


def test_of_two_wirings_with_one_revision_the_second_counts_as_a_later_one() -> None:
    """The same wiring again is the same revision; the next real one comes after both."""
    settings = Settings(state_dir=Path("state"), database_url="sqlite://")
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    agent = Agent(name="host1", driver=driver, fence=MemoryFence())
    one, other = Wiring(host="host1", revision=5), Wiring(host="host1", revision=5, groups=(GROUP,))
    for wiring, revision in (
        (one, 5),
        (one, 5),
        (other, 6),
        (other, 6),
        (one, 6),
        (Wiring(host="host1", revision=7), 7),
    ):
        assert asyncio.run(agent.wire(wiring)).revision == revision
    assert driver.network.wiring == Wiring(host="host1", revision=7)
