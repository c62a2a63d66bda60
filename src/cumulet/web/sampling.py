"""Lets through a bounded number of events that callers cause at will, such as refusals to be recorded, and counts the
others.

Enough to see what is tried, too few to fill a disk, or to push out of a log what was there before.
"""

from __future__ import annotations

from collections import Counter

WINDOW_SECONDS = 600.0
OF_ONE = 20
"""Of one caller in a window: one user, or one address that nobody is known by (IPv6: one /64)."""
OF_ALL = 60
"""Of all callers together in a window. So few that refusals alone push no line that is younger than a month out of the
audit trail: tests/web/test_bounded_logs.py has the sum."""
MOST_NAMED = 100
"""Callers that are counted each for itself; any more are counted together."""
ANY_OTHER = ""


class Sampling:
    """One for each kind of caller and event. Lives on the event loop's thread."""

    def __init__(self, *, of_one: int = OF_ONE, of_all: int = OF_ALL, seconds: float = WINDOW_SECONDS) -> None:
        self._most_of_one, self._most, self._seconds = of_one, of_all, seconds
        self._window = 0.0
        self._kept: Counter[str] = Counter()
        self._all = 0
        self._left_out: Counter[str] = Counter()

    def keep(self, caller: str, now: float) -> bool:
        """Whether to let one more through; `now` in seconds, of a clock that only goes on."""
        if now >= self._window + self._seconds:
            self._window = now
            self._kept.clear()
            self._all = 0
        if self._all >= self._most or self._kept[caller] >= self._most_of_one:
            named = caller in self._left_out or len(self._left_out) < MOST_NAMED
            self._left_out[caller if named else ANY_OTHER] += 1
            return False
        self._all += 1
        self._kept[caller] += 1
        return True

    def left_out(self) -> dict[str, int]:
        """By caller: how many were not let through since this was asked last."""
        numbers, self._left_out = dict(self._left_out), Counter()
        return numbers
