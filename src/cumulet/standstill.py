"""Guests that stand still in the middle of a move that this process carries: its other work makes way meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

LONGEST_SECONDS = 0.25
"""So long others make way for one guest, or for several at the same time."""
PART = 8
"""Of the time, they make way for at most one part in so many, however many guests move."""


class Standstill:
    """Who stands still, and since when. In the event loop's thread."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.told: Callable[[float], None] = lambda seconds: None
        """Called when others have to make way, with seconds, and when they no longer have to, with 0."""
        self._who: set[str] = set()
        self._began = self._ends = self._next = -math.inf

    def begin(self, who: str) -> None:
        at = self._now()
        if at < self._ends:
            self._who.add(who)
        elif at >= self._next:
            self._who = {who}
            self._began, self._ends, self._next = at, at + LONGEST_SECONDS, at + PART * LONGEST_SECONDS
            self.told(LONGEST_SECONDS)

    def end(self, who: str) -> None:
        """It runs, or its move has failed. Without this the time runs out."""
        if who not in self._who:
            return
        self._who.remove(who)
        at = self._now()
        if not self._who and at < self._ends:
            self._ends, self._next = at, self._began + PART * (at - self._began)
            self.told(0.0)
