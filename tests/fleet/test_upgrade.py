"""A fleet of an earlier commit becomes one of this commit, a process at a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fleet.machines import ROOT, reason_not
from tests.fleet.upgrade import OLD

WHY = reason_not()


def has_history() -> bool:
    found = subprocess.run(["git", "cat-file", "-e", f"{OLD}^{{commit}}"], cwd=ROOT, check=False, capture_output=True)
    return found.returncode == 0


@pytest.mark.qemu
@pytest.mark.postgres
@pytest.mark.skipif(WHY is not None, reason=f"no fleet can be run here: {WHY}")
@pytest.mark.skipif(not has_history(), reason=f"this repository's history does not go back to {OLD}")
def test_a_fleet_is_upgraded_while_its_guests_tick_and_one_of_them_moves() -> None:
    command = [sys.executable, "-m", "tests.fleet.upgrade"]
    told = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=1200)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "NOT SO" not in told.stdout
