"""Being told to stop: SIGINT and SIGTERM of a process that has an event loop.

Python hands a signal to the loop through a pipe, and a child that is forked, as pyroute2's are for another namespace,
has both the handler and the pipe: a SIGTERM for the child stopped its parent. So children take none of it with them.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

STOPPING = (signal.SIGINT, signal.SIGTERM)
GivenT = TypeVar("GivenT")


class Stopped(Exception):
    """Told to stop before what was awaited was there."""


class _Forking(threading.local):
    before: set[int]
    """The signals that this thread had blocked before it began to fork."""


_forking = _Forking()


def when_told_to_stop(stop: Callable[[], object]) -> None:
    """Call this in the running loop at each of these signals to this process."""
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, stop)
    _keep_from_children()


async def unless(stop: asyncio.Event, awaited: Awaitable[GivenT]) -> GivenT:
    """What is awaited. If `stop` is set before, it is cancelled. Raises Stopped then."""
    work = asyncio.ensure_future(awaited)
    told = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise Stopped
        return work.result()
    finally:
        for one in (work, told):
            one.cancel()
        await asyncio.gather(work, told, return_exceptions=True)


@functools.cache
def _keep_from_children() -> None:
    """Python forgets no such hook: they are registered once. Blocked: until the child has lost handler and pipe."""
    os.register_at_fork(before=_block, after_in_parent=_as_before, after_in_child=_as_a_child)


def _block() -> None:
    _forking.before = set(signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING))


def _as_before() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.before)


def _as_a_child() -> None:
    if signal.set_wakeup_fd(-1) != -1:
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
    _as_before()
