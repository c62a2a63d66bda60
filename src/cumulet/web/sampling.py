"""How many refusals of callers nobody knows are written down: enough to see what is tried, too few to fill a disk."""

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

    def __init__(self) -> None:
        self._window = 0.0
        self._kept: Counter[str] = Counter()
        self._all = 0
        self._left_out = 0

    def keep(self, client: str, now: float) -> bool:
        """Whether to write down one more; `now` in seconds, of a clock that only goes on."""
        if now >= self._window + WINDOW_SECONDS:
            self._window = now
            self._kept.clear()
            self._all = 0
        peer = peer_of(client)
        if self._all >= OF_ALL or self._kept[peer] >= OF_ONE:
            self._left_out += 1
            return False
        self._all += 1
        self._kept[peer] += 1
        return True

    def left_out(self) -> int:
        """How many were not written down since this was asked last."""
        number, self._left_out = self._left_out, 0
        return number
