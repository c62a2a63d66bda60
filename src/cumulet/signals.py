"""Being told to stop: SIGINT and SIGTERM of a process that has an event loop.

Python hands a signal to the loop through a pipe, and a child that is forked, as pyroute2's are for another namespace,
has both the handler and the pipe: a SIGTERM for the child stopped its parent. So children take none of it with them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

STOPPING = (signal.SIGINT, signal.SIGTERM)


def when_told_to_stop(stop: Callable[[], object]) -> None:
    """Call this in the running loop at each of these signals to this process."""
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop)


def _before_fork() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def _as_a_parent() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _as_a_child() -> None:
    if signal.set_wakeup_fd(-1) != -1:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


os.register_at_fork(before=_before_fork, after_in_parent=_as_a_parent, after_in_child=_as_a_child)
