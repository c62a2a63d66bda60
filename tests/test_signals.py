"""A process that is told to stop, and its children."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

from cumulet.signals import when_told_to_stop


def test_a_signal_for_a_forked_child_stops_the_child_alone() -> None:
    """Such a child has its parent's handlers and pipe, and pyroute2 ends its children by SIGTERM."""
    ended: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    async def run() -> None:
        stop = asyncio.Event()
        when_told_to_stop(stop.set)
        for _ in range(3):
            await asyncio.to_thread(fork)
        assert ended == [-signal.SIGTERM] * 3
        # What is in the pipe is read in the order in which it came.
        reached = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, reached.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await reached.wait()
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    assert threading.current_thread() is threading.main_thread()
    asyncio.run(run())
