"""Programs that are run on untrusted data end with the process that runs them, and leave no others behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cumulet.confined import tools, user_ids

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
    if uid and os.geteuid() != 0:
        pytest.skip("only root has other users to run programs as")
    if uid and (problem := user_ids.problem(range(uid, uid + 2))) is not None:
        pytest.skip(problem)
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


ATTEMPTS = """
import ctypes, json, os, threading
libc = ctypes.CDLL(None, use_errno=True)
def refused(number, *arguments):
    ctypes.set_errno(0)
    if libc.syscall(number, *arguments) == 0:
        os._exit(0)  # In a new process.
    return ctypes.get_errno()
results = {
    "fork": refused(NUMBERS["fork"]),
    "vfork": refused(NUMBERS["vfork"]),
    "clone": refused(NUMBERS["clone"], 17, 0, 0, 0, 0),
    "clone3": refused(435, (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17), 88),
}
try:
    os.fork() or os._exit(0)
except OSError as problem:
    results["library"] = problem.errno
results["outlive"] = 0 if libc.prctl(1, 0, 0, 0, 0) == 0 else ctypes.get_errno()
results["other"] = 0 if libc.prctl(15, b"renamed", 0, 0, 0) == 0 else ctypes.get_errno()
thread = threading.Thread(target=lambda: results.update(thread=0))
thread.start()
thread.join()
raise SystemExit(json.dumps(results))
"""
NUMBERS = {"fork": 57, "vfork": 58, "clone": 56}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of its system calls")
def test_a_tool_begins_threads_but_no_process_and_does_not_ask_to_outlive_its_parent() -> None:
    program = f"NUMBERS = {NUMBERS}\n{ATTEMPTS}"
    with pytest.raises(tools.ToolFailed) as said:
        asyncio.run(tools.run([sys.executable, "-I", "-S", "-c", program], uid=None, root=None, binds=[], timeout_s=60))
    not_allowed = dict.fromkeys(("fork", "vfork", "clone", "library", "outlive"), errno.EPERM)
    found = {"clone3": errno.ENOSYS, "other": 0, "thread": 0} | not_allowed
    *_, told = str(said.value).partition(": {")
    assert json.loads("{" + told) == found
