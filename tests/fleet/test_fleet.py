"""A slice of `make fleet`: two control planes, two hosts, a move between them, a control plane killed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fleet.machines import ROOT, reason_not

WHY = reason_not()


@pytest.mark.qemu
@pytest.mark.postgres
@pytest.mark.skipif(WHY is not None, reason=f"no fleet can be run here: {WHY}")
def test_a_fleet_of_real_machines_moves_guests_and_outlives_a_control_plane() -> None:
    command = [sys.executable, "-m", "tests.fleet.story", "--short", "--hosts", "2"]
    told = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "NOT SO" not in told.stdout
