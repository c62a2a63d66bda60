"""`cumulet demo`: every claim holds, and a claim that does not hold is noticed."""

from __future__ import annotations

import io
import os
import shutil
import threading

import httpx
import pytest
from rich.console import Console

from cumulet.cli.client import Persona
from cumulet.cli.demo.consoles import Sight, Watcher, newest_tick
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.migration import Meter

from .conftest import cumulet


def test_the_story_holds_on_simulated_hosts() -> None:
    told = cumulet("demo", "--driver", "simulated", seconds=120)
    assert told.status == 0, told.out + told.err
    lines = [line for line in told.out.splitlines() if line.strip()]
    assert "SIMULATED" in lines[0]
    assert "SIMULATED" in lines[-1]
    assert "NOT SO" not in told.out


@pytest.mark.qemu
@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no QEMU on this machine")
def test_the_story_holds_on_real_guests() -> None:
    told = cumulet("demo", "--driver", "qemu", seconds=300)
    assert told.status == 0, told.out + told.err
    assert "SIMULATED" not in told.out
    said = {"longest hole": os.geteuid() == 0, "this machine is not on `public`": True, "takes root": True}
    assert any(words in told.out for words, may_be in said.items() if may_be)
    if os.geteuid() == 0:
        assert "The servers have no network" not in told.out


@pytest.fixture
def evidence() -> Evidence:
    return Evidence(Console(file=io.StringIO()))


def test_one_claim_that_does_not_hold_spoils_the_whole(evidence: Evidence) -> None:
    evidence.claim("first", True, "seen")
    assert evidence.all_held
    evidence.claim("second", False, "something else")
    evidence.claim("third", True, "seen")
    assert not evidence.all_held


def test_nothing_shown_is_not_success(evidence: Evidence) -> None:
    assert not evidence.all_held


def test_words_from_the_api_are_not_read_as_markup(evidence: Evidence) -> None:
    evidence.claim("refused", True, "[red]'x' is not of type[/red]")
    assert isinstance(evidence.console.file, io.StringIO)
    assert "[red]'x' is not of type[/red]" in evidence.console.file.getvalue()


@pytest.fixture
def watcher() -> Watcher:
    nobody = Persona(name="nobody", http=httpx.Client(), token=None)
    return Watcher(nobody, "id", _stop=threading.Event())


@pytest.mark.parametrize(
    ("sights", "uninterrupted"),
    [
        ([(10, 0.0), (11, 0.1), (12, 0.2)], True),
        ([(10, 0.0), (11, 0.1), (16, 0.7)], True),
        ([(10, 0.0), (11, 0.1), (1, 0.3)], False),
        ([(10, 0.0), (90, 0.1)], False),
        ([(10, 0.0)], False),
    ],
    ids=["every tick", "a silence", "started anew", "a leap", "never went on"],
)
def test_a_counter_that_began_anew_is_noticed(
    watcher: Watcher, sights: list[tuple[int, float]], uninterrupted: bool
) -> None:
    watcher.sights = [Sight(tick, at) for tick, at in sights]
    assert watcher.uninterrupted is uninterrupted


def test_the_gap_is_the_longest_silence_less_one_tick(watcher: Watcher) -> None:
    watcher.sights = [Sight(1, 0.0), Sight(2, 0.1), Sight(3, 0.45), Sight(4, 0.55)]
    assert watcher.longest_gap_ms == pytest.approx(250)


def test_another_server_s_tick_counts_for_nothing() -> None:
    assert newest_tick("tick 7 mine\ntick 9 other\n", "mine") == 7
    assert newest_tick("tick 9 other\ntick", "mine") is None


def test_the_phase_follows_from_what_is_left_to_copy() -> None:
    meter = Meter()
    disk = meter.read({"status": "running", "disk_remaining_bytes": 5, "memory_remaining_bytes": 7})
    memory = meter.read({"status": "running", "disk_remaining_bytes": 0, "memory_remaining_bytes": 7})
    assert (disk.phase, disk.remaining) == ("copying disk", 12)
    assert memory.phase == "copying memory"
    assert meter.read({"status": "running", "memory_remaining_bytes": 0}).phase == "starting"
    assert meter.read({"status": "preparing", "memory_remaining_bytes": None}).phase == "preparing"
