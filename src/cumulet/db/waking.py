"""What threads tell event loops. What a thread tells `together` wakes a loop once.

A wake-up writes a byte to the loop's pipe. There the thread lets go of the interpreter, and has it back only after the
turn of the loop that it woke.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


Callback = Callable[[], object]
ByLoop = dict[asyncio.AbstractEventLoop, list[Callback]]


class _Untold(threading.local):
    """What this thread tells together. None: it tells at once."""

    by_loop: ByLoop | None = None


_untold = _Untold()


def soon(loop: asyncio.AbstractEventLoop, callback: Callback) -> None:
    """From any thread: let `loop` call `callback`. A loop that is closed is not told."""
    if _untold.by_loop is not None:
        _untold.by_loop.setdefault(loop, []).append(callback)
    elif not loop.is_closed():
        loop.call_soon_threadsafe(callback)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What this thread tells by `soon` is told at the end, in its order."""
    by_loop: ByLoop = {}
    _untold.by_loop = by_loop
    try:
        yield
    finally:
        _untold.by_loop = None
        for loop, callbacks in by_loop.items():
            soon(loop, partial(_call, loop, callbacks))


def _call(loop: asyncio.AbstractEventLoop, callbacks: list[Callback]) -> None:
    for callback in callbacks:
        loop.call_soon(callback)  # so that one which fails keeps none of the others from being called


def awaited(future: Future[T]) -> asyncio.Future[T]:
    """As `asyncio.wrap_future`, but told by `soon`."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle() -> None:
        if answer.cancelled():
            return
        error = future.exception()
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(future.result())

    answer.add_done_callback(lambda done: future.cancel() if done.cancelled() else None)
    future.add_done_callback(lambda done: None if done.cancelled() else soon(loop, settle))
    return answer
