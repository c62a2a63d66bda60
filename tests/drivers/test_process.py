"""When a process has ended: not before its last thread has, because that keeps its files open."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.drivers.qemu import process

FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print(flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit, of this thread alone
"""


@pytest.fixture
def outlived() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose first thread is a zombie, while another lives."""
    with subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None
            started.stdout.readline()
            while _state(started.pid) != "Z":
                pass
            yield started
        finally:
            started.kill()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_process_lives_as_long_as_its_last_thread(outlived: subprocess.Popen[bytes]) -> None:
    known = process.identify(outlived.pid)
    assert known is not None
    assert process.alive(known)
    assert not asyncio.run(process.wait_for_end(known, 0.1))
    assert asyncio.run(process.kill(known))
    assert not process.alive(known)
    assert process.identify(outlived.pid) is None


def test_a_zombie_without_other_threads_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as started:
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        assert _state(started.pid) == "Z"
        assert process.identify(started.pid) is None
