"""Processes told apart for ever: number, start time and boot, and their end as an event (pidfd)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from functools import cache
from pathlib import Path

from cumulet.drivers.qemu.record import ProcessId


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessId | None:
    """The identity of a living process, None where there is none.

    A zombie is none once its first thread is its last. Until then others have its files open, and may write to them.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X") and int(fields[17]) <= 1:  # proc(5): state, num_threads
        return None
    return ProcessId(pid=pid, start_time=int(fields[19]), boot_id=_boot_id())


def alive(process: ProcessId | None) -> bool:
    if process is None:
        return False
    _reap(process.pid)
    return identify(process.pid) == process


async def wait_for_end(process: ProcessId, timeout_s: float) -> bool:
    """True once the process has ended, False where it still lives after the time."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not alive(process):
            return True
        loop.add_reader(handle, ended.set)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), timeout_s)
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return not alive(process)


async def kill(process: ProcessId, *, timeout_s: float = 10.0) -> bool:
    """SIGKILL to exactly this process, also when it is stopped. True once it has ended."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if alive(process):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)
    return await wait_for_end(process, timeout_s)


_children: set[int] = set()
"""Processes that this one has started and not seen to have ended."""


def note_child(pid: int) -> None:
    """Note a child. Those that have ended meanwhile are reaped first: a zombie counts among its user's processes."""
    for child in list(_children):
        _reap(child)
    _children.add(pid)


def _reap(pid: int) -> None:
    """Take the exit status where the process is our own child; after a restart of the agent it is not."""
    try:
        ended, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        ended = pid
    if ended:
        _children.discard(pid)
