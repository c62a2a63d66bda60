"""Machines of a fleet end with the process that made them, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fleet.machines import ROOT, reason_not, run
from tests.told import until

WHY = reason_not()
MAKE = """
import signal, sys
from pathlib import Path
from tests.fleet.machines import fleet_of
with fleet_of(Path(sys.argv[1]), "one") as machines:
    started = machines["one"].start("sleep", "1000", log="sleep")
    print(started.process.pid, machines["one"].namespace, flush=True)
    signal.pause()
"""


@pytest.mark.skipif(WHY is not None, reason=f"no fleet can be run here: {WHY}")
def test_machines_and_what_runs_on_them_are_gone_when_their_maker_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MAKE, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        pid, namespace = maker.stdout.readline().decode().split()
        assert namespace in run("ip", "netns", "list")
        maker.send_signal(signal.SIGKILL)
    prefix = namespace.rpartition("-")[0]
    until("its machines are gone", lambda: f"{prefix}-" not in run("ip", "netns", "list"), 30)
    until("what ran on them is gone", lambda: not _runs(pid), 30)


def _runs(pid: str) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent to see it runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
