"""Lets through a bounded number of events that unknown callers cause, such as refusals to be logged.

Enough to see what is tried, too few to fill a disk.
"""

from __future__ import annotations

from collections import Counter

from cumulet.web.peer import peer_of

WINDOW_SECONDS = 60.0
OF_ONE = 30
"""Of one address (IPv6: one /64) in a window."""
OF_ALL = 300
"""Of all addresses together in a window."""


class Sampling:
    """One for each log. Lives on the event loop's thread."""

    def __init__(self, *, of_one: int = OF_ONE, of_all: int = OF_ALL) -> None:
        self._most_of_one, self._most = of_one, of_all
        self._window = 0.0
        self._kept: Counter[str] = Counter()
        self._all = 0
        self._left_out = 0

    def keep(self, client: str, now: float) -> bool:
        """Whether to let one more through; `now` in seconds, of a clock that only goes on."""
        if now >= self._window + WINDOW_SECONDS:
            self._window = now
            self._kept.clear()
            self._all = 0
        peer = peer_of(client)
        if self._all >= self._most or self._kept[peer] >= self._most_of_one:
            self._left_out += 1
            return False
        self._all += 1
        self._kept[peer] += 1
        return True

    def left_out(self) -> int:
        """How many were not let through since this was asked last."""
        number, self._left_out = self._left_out, 0
        return number
