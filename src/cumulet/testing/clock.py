"""The clock of a test's cloud: the machine's own, which a test may move forward."""

from __future__ import annotations

import asyncio
import threading

from cumulet.clock import SystemClock


class AdvanceableClock(SystemClock):
    """Runs at one second a second; `advance` adds to it at once and wakes whoever slept until then. Thread-safe."""

    def __init__(self) -> None:
        self._ahead_us = 0
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead_us / 1_000_000

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        sleeper = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._sleepers.add(sleeper)
        try:
            while (left := until - self.monotonic()) > 0:
                sleeper[1].clear()
                try:
                    async with asyncio.timeout(left):
                        await sleeper[1].wait()
                except TimeoutError:
                    continue
        finally:
            with self._lock:
                self._sleepers.discard(sleeper)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass now."""
        with self._lock:
            self._ahead_us += int(seconds * 1_000_000)
            sleepers = list(self._sleepers)
        for loop, event in sleepers:
            loop.call_soon_threadsafe(event.set)
