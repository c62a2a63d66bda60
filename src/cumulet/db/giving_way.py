"""When a thread that reads for a request lets others compute: only one thread of the interpreter does at a time.

A thread that reads rows lets go of the interpreter at each row, and has it back before those that wait are awake: they
would wait for the whole list. So after each `WORK_SECONDS` it sleeps for a moment, and goes on sleeping while `others`
have work, `MOST_PAUSES` times in a row at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WORK_SECONDS = 0.00025
PAUSE_SECONDS = 0.00002
"""As short as a sleep can be: another thread has the interpreter then."""
MOST_PAUSES = 8
"""Half a millisecond: the kernel adds 0.05 ms to each."""


class GivingWay:
    """One thread's. To be called again and again, at a place where it may wait."""

    def __init__(self, others: Callable[[], bool]) -> None:
        self._others = others
        self._since = time.thread_time()
        """What this thread had computed in all when it gave way last."""

    def __call__(self) -> None:
        if time.thread_time() - self._since < WORK_SECONDS:
            return
        for _ in range(MOST_PAUSES):
            time.sleep(PAUSE_SECONDS)
            if not self._others():
                break
        self._since = time.thread_time()
