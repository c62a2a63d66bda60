"""How often the watchdog looks: at the end of the lease, and otherwise now and then, without a rest for nobody. What it
ends with each lease: the guests again and again, the agent and the routers once."""

from __future__ import annotations

import errno
import itertools
import time
from pathlib import Path

import pytest

from cumulet.agent import lease, watchdog


@pytest.mark.parametrize(
    ("left", "rests"),
    [
        ([5.0, 0.15, 0.0], [0.2, 0.15, 0.2]),
        ([0.2, 0.21, 0.19], [0.2, 0.2, 0.19]),
        ([0.0, 0.0, 0.001], [0.2, 0.2, 0.001]),
    ],
)
def test_it_looks_again_when_the_lease_ends_or_after_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: list[float], rests: list[float]
) -> None:
    seen, slept = itertools.chain(left, itertools.repeat(0.0)), list[float]()
    monkeypatch.setattr(lease, "seconds_left", lambda _file: next(seen))
    monkeypatch.setattr(watchdog, "kill_agent", lambda _state: False)
    monkeypatch.setattr(watchdog, "kill_guests", lambda _state: 0)
    monkeypatch.setattr(watchdog, "end_routers", lambda: 0)
    monkeypatch.setattr(watchdog, "_is_locked", lambda _lock: len(slept) < len(left))
    monkeypatch.setattr(time, "sleep", slept.append)
    watchdog.watch(tmp_path)
    assert slept == rests


def test_the_agent_that_comes_after_a_lease_has_run_out_lives_and_its_guests_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that agent can be given the next lease. It makes no router before it has one."""
    left = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    seen, ended = itertools.chain(left, itertools.repeat(0.0)), list[str]()

    def ends(what: str, was: int) -> int:
        ended.append(what)
        return was

    looks = itertools.count(1)
    monkeypatch.setattr(lease, "seconds_left", lambda _file: next(seen))
    monkeypatch.setattr(watchdog, "kill_agent", lambda _state: ends("agent", 1))
    monkeypatch.setattr(watchdog, "kill_guests", lambda _state: ends("guests", 0))
    monkeypatch.setattr(watchdog, "end_routers", lambda: ends("routers", 1))
    monkeypatch.setattr(watchdog, "_is_locked", lambda _lock: next(looks) < 5)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    watchdog.watch(tmp_path)
    of_a_lease = ["agent", "guests", "routers"]
    assert ended == [*of_a_lease, "guests", "guests", *of_a_lease, "guests"]


NO_DESCRIPTOR = OSError(errno.ENFILE, "Too many open files in system")


class Looks:
    """What a watchdog meets: seconds left at each look, its clock, and acts that fail at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: list[float | OSError], fails: dict[str, int]) -> None:
        self.left = left
        self.fails = fails
        self.clock = 1000.0
        self.ended = list[tuple[str, float]]()
        monkeypatch.setattr(lease, "seconds_left", self.seconds_left)
        monkeypatch.setattr(lease, "now", lambda: self.clock)
        monkeypatch.setattr(watchdog, "kill_agent", lambda _state: self.act("agent"))
        monkeypatch.setattr(watchdog, "kill_guests", lambda _state: self.act("guests"))
        monkeypatch.setattr(watchdog, "end_routers", lambda: self.act("routers"))
        monkeypatch.setattr(watchdog, "_is_locked", lambda _lock: bool(self.left or self.fails))
        monkeypatch.setattr(time, "sleep", self.sleep)

    def seconds_left(self, _file: Path) -> float:
        left = self.left.pop(0) if self.left else 0.0
        if isinstance(left, OSError):
            raise left
        return left

    def act(self, what: str) -> int:
        if self.fails.get(what):
            self.fails[what] -= 1
            raise NO_DESCRIPTOR
        self.fails.pop(what, None)
        self.ended.append((what, self.clock))
        return 0

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


@pytest.mark.parametrize("fails", ["agent", "guests", "routers"])
def test_what_it_could_not_end_it_ends_at_a_later_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Where its agent is dead or hangs, nobody else would."""
    looks = Looks(monkeypatch, [1.0, 0.0], {fails: 3})
    watchdog.watch(tmp_path)
    once = {what for what, _ in looks.ended}
    assert once == {"agent", "guests", "routers"}
    assert [what for what, _ in looks.ended if what != "guests"] == ["agent", "routers"]


def test_routers_that_it_could_not_end_are_left_to_an_agent_that_has_a_lease_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(monkeypatch, [1.0, 0.0, 1.0, 0.0], {"routers": 1})
    watchdog.watch(tmp_path)
    assert [what for what, _ in looks.ended] == ["agent", "guests", "agent", "guests", "routers"]


@pytest.mark.parametrize(("known", "ends_after"), [([0.7], 0.7), ([], watchdog.START_SECONDS)])
def test_a_lease_that_cannot_be_read_ends_when_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: list[float | OSError], ends_after: float
) -> None:
    looks = Looks(monkeypatch, [*known, *[NO_DESCRIPTOR] * 60], {})
    looks.left = looks.left[: len(known) + round(ends_after / watchdog.LOOK_SECONDS) + 2]
    watchdog.watch(tmp_path)
    assert {what for what, _ in looks.ended} == {"agent", "guests", "routers"}
    assert looks.ended[0][1] == pytest.approx(1000.0 + ends_after)
