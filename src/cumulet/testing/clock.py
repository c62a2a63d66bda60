"""The clock of a test's cloud: the machine's own, which a test may move forward."""

from __future__ import annotations

import asyncio
import threading

from cumulet.clock import SystemClock

MOST_SECONDS_AHEAD = 10 * 366 * 24 * 3600
"""How far the time of day may be ahead of the machine's: ten years, in seconds."""


class AdvanceableClock(SystemClock):
    """Runs at one second a second; `advance` adds to it at once and wakes whoever slept until then. Thread-safe."""

    def __init__(self) -> None:
        self._ahead_us = 0
        self._returned_us = 0
        """The part of `_ahead_us` that `return_to_now` has taken back from the time of day."""
        self._lock = threading.Lock()
        self._sleepers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def now_us(self) -> int:
        return super().now_us() + self._ahead_us - self._returned_us

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
        """Let `seconds` pass now. TypeError for what is not a number, ValueError below 0 or beyond ten years."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"seconds is a number, not {seconds!r}")
        if not seconds >= 0:  # no number at all, too
            raise ValueError(f"seconds is 0 or more, not {seconds}: time only goes on")
        with self._lock:
            if seconds > MOST_SECONDS_AHEAD - (self._ahead_us - self._returned_us) / 1_000_000:
                raise ValueError(f"a cloud can be at most {MOST_SECONDS_AHEAD} seconds ahead of the machine's clock")
            self._ahead_us += int(seconds * 1_000_000)
            sleepers = list(self._sleepers)
        for loop, event in sleepers:
            loop.call_soon_threadsafe(event.set)

    def return_to_now(self) -> None:
        """Set the time of day to the machine's again. `monotonic` never goes back, because tasks sleep until its
        times."""
        with self._lock:
            self._returned_us = self._ahead_us
