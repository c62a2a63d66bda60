"""Leases that other runners hold: for how long, by our own clock, each has not been renewed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cumulet.clock import Clock
from cumulet.db.engine import Row


class _Seen(msgspec.Struct, frozen=True):
    """A lease, and when we saw it first as it is."""

    owner: str
    beat: int
    at: float


class Beats:
    """What was seen of them at the last look. A row has `id`, `lease_owner` and `lease_beat`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def see(self, rows: Iterable[Row]) -> None:
        """Look at all of them. What is not among these rows is forgotten."""
        now = self._clock.monotonic()
        self._seen = {row.id: self._known(row) or _Seen(row.lease_owner, row.lease_beat, now) for row in rows}

    def unchanged_seconds(self, row: Row) -> float:
        """For how long this lease has been seen as it is; 0 if it was not seen so."""
        known = self._known(row)
        return self._clock.monotonic() - known.at if known is not None else 0.0

    def _known(self, row: Row) -> _Seen | None:
        known = self._seen.get(row.id)
        return known if known is not None and (known.owner, known.beat) == (row.lease_owner, row.lease_beat) else None
