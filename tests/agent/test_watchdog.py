"""How often the watchdog looks: at the end of the lease, and otherwise now and then, without a rest for nobody. What it
ends with each lease: the guests again and again, the agent and the routers once."""

from __future__ import annotations

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
