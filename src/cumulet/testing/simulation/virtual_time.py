"""An event loop whose time is a number: when nothing is ready, the time jumps to what is due next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, TypeVar

from cumulet.testing.simulation.life import require_alive

EPOCH_US = 1_800_000_000_000_000
T = TypeVar("T")
THREAD_SECONDS = 0.01
"""Until a thread has done its work, and as long again until that is known."""


class NothingLeft(Exception):
    """All tasks wait for something that never comes: a deadlock."""


class _Selector(selectors.DefaultSelector):
    """A selector without files that never waits. It tells the loop how long it would have waited."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingLeft
        if timeout > 0:
            self.loop.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs as fast as it can; `now` is seconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def _write_to_self(self) -> None:
        """Do nothing: there is one thread, so the loop never sleeps."""

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: object, func: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Work of a thread: it is done after a while, and known after another. A process that was killed does none."""
        require_alive()
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                result = func(*args)
            except Exception as problem:
                self.call_later(THREAD_SECONDS, tell, partial(future.set_exception, problem))
            else:
                self.call_later(THREAD_SECONDS, tell, partial(future.set_result, result))

        def tell(say: Callable[[], None]) -> None:
            if not future.done():
                say()

        self.call_later(THREAD_SECONDS, work)
        return future


class VirtualClock:
    """`clock.Clock` of one participant: the loop's time, with a wall clock that may jump, and the seed's randomness."""

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self._loop = loop
        self._random = random
        self.wrong_by_us = 0

    def now_us(self) -> int:
        return EPOCH_US + round(self._loop.now * 1_000_000) + self.wrong_by_us

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uuid(self) -> str:
        number = self._random.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62) | (4 << 76) | (2 << 62)
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def random(self) -> float:
        return self._random.random()
