"""What is started to find out what QEMU can do ends with whoever wanted to know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from cumulet.host.qemu.process import identify
from cumulet.host.qemu.record import ProcessId

ASKS = """
import asyncio
from cumulet.host.qemu import facts
asyncio.run(facts._run(["sleep", "600"], b"", timeout_s=500))
"""


def test_a_question_ends_with_the_process_that_asked() -> None:
    """An agent was killed while it asked, and a QEMU that nobody knew stayed for ever."""
    asking = subprocess.Popen([sys.executable, "-c", ASKS])
    try:
        asked = child_of(asking.pid)
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        deadline = time.monotonic() + 30.0
        while identify(asked.pid) == asked:
            assert time.monotonic() < deadline, "it lives on"
            time.sleep(0.01)
    finally:
        asking.kill()
        asking.wait()


def child_of(parent: int) -> ProcessId:
    """Once it is what it was to become: `setpriv` has set what it had to."""
    deadline = time.monotonic() + 30.0
    while time.monotonic() < deadline:
        for name in filter(str.isdecimal, os.listdir("/proc")):
            found = identify(int(name))
            if found is not None and parent_and_command(int(name)) == (parent, "sleep"):
                return found
        time.sleep(0.01)
    raise AssertionError("nothing was asked")


def parent_and_command(pid: int) -> tuple[int, str]:
    try:
        with open(f"/proc/{pid}/stat") as file:
            stat = file.read()
    except OSError:
        return 0, ""
    command = stat[stat.index("(") + 1 : stat.rindex(")")]
    return int(stat[stat.rindex(")") + 2 :].split()[1]), command
