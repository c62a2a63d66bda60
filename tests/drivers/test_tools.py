"""Programs that are run on untrusted data end with the process that runs them, however it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cumulet.confined import user_ids

RUNS = """
import asyncio, sys
from pathlib import Path
from cumulet.confined import tools
uid, root, vm = int(sys.argv[1]) or None, Path(sys.argv[2]), Path(sys.argv[3])
command = ["/bin/sh", "-c", "echo $$ > " + ("/vm/pid" if uid else str(vm / "pid")) + "; exec sleep 600"]
own = root if uid else None
asyncio.run(tools.run(command, uid=uid, root=own, binds=[(vm, "/vm", "rw")], timeout_s=600))
"""
UID = 73_998


@pytest.mark.parametrize("uid", [0, UID])
def test_a_killed_process_takes_its_tools_with_it(tmp_path: Path, uid: int) -> None:
    if uid and (os.geteuid() != 0 or user_ids.problem(range(uid, uid + 2)) is not None):
        pytest.skip("only root has other users to run programs as")
    root, vm = tmp_path / "root", tmp_path / "vm"
    root.mkdir()
    vm.mkdir()
    if uid:
        os.chown(vm, uid, uid)
    runner = subprocess.Popen([sys.executable, "-c", RUNS, str(uid), str(root), str(vm)])
    noted = vm / "pid"
    try:
        while not noted.exists() or not noted.read_text().endswith("\n"):
            assert runner.poll() is None
        tool = os.pidfd_open(int(noted.read_text()))
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    try:
        ended, _, _ = select.select([tool], [], [], 30)
        assert ended == [tool]
    finally:
        os.close(tool)
