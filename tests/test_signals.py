"""A process that is told to stop, and its children."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

from cumulet.signals import STOPPING, when_told_to_stop

SECONDS = 10
"""Much longer than any of it takes."""


def _forked_and_told() -> int:
    """The exit code of a child that gets a SIGTERM; if that does not end it, SIGALRM does."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        while True:
            signal.pause()
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_signal_for_a_forked_child_stops_the_child_alone() -> None:
    """Such a child has its parent's handlers and pipe, and pyroute2 ends its children by SIGTERM."""

    async def run() -> None:
        stop = asyncio.Event()
        when_told_to_stop(stop.set)
        assert [await asyncio.to_thread(_forked_and_told) for _ in range(3)] == [-signal.SIGTERM] * 3
        # What is in the pipe is read in the order in which it came.
        reached = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reached.set)
        async with asyncio.timeout(SECONDS):
            os.kill(os.getpid(), signal.SIGUSR1)
            await reached.wait()
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()

    assert threading.current_thread() is threading.main_thread()
    asyncio.run(run())


def test_a_fork_leaves_the_mask_of_signals_as_it_was() -> None:
    """SIGINT was blocked before, SIGTERM was not: neither parent nor child has it otherwise afterwards."""

    async def run() -> None:
        when_told_to_stop(lambda: None)

    asyncio.run(run())
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        child = os.fork()
        blocked = [number for number in STOPPING if number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        if child == 0:
            os._exit(0 if blocked == [signal.SIGINT] else 1)
        assert blocked == [signal.SIGINT]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)
