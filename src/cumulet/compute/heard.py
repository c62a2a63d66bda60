"""The records of hosts: read before hosts are asked, and updated when they were heard. Both for many hosts at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from cumulet.clock import Clock
from cumulet.compute import agreed, drift
from cumulet.compute import hosts as host_records
from cumulet.compute.agreed import Agreed
from cumulet.db.engine import Database, Tx
from cumulet.host.driver import GuestReport, HostFacts

RECORD_SECONDS = 60.0
"""How often it is recorded that a host was heard, if it has said nothing new."""


class Known(msgspec.Struct, frozen=True):
    """What the records say of a host. `lease_seconds`: None without a lease, or if this process has heard the host."""

    cleared: bool
    """It is up, and has removed the guests that it lost while it was down."""
    lease_seconds: float | None
    before: drift.Before
    totals: Mapping[str, int]
    """By resource class: the total of its inventory in placement."""


class Recorded(msgspec.Struct, frozen=True):
    """What follows from recording what a host said."""

    wires: bool = False
    """Its agent has just started, and servers' ports are bound there: it is told its wiring before the welcome."""
    corrections: Sequence[drift.Correction] = ()
    generations: dict[str, int] = {}
    cleared: bool = True
    """It is recorded that the host has no guests left that it lost; else it has to be, once they are removed."""
    more: bool = False
    """There may be more to correct, in the next round."""
    agreed: Agreed | None = None


class Heard:
    """What each host has told this process, as far as it was recorded.

    It decides nothing about leases and fences: they depend on what `host_watch` hears, not on what is recorded.
    """

    def __init__(self, db: Database, clock: Clock, require_lead: Callable[[Tx], None]) -> None:
        self._db = db
        self._clock = clock
        self._require_lead = require_lead
        self._facts: dict[str, HostFacts] = {}
        """By host: the facts that were recorded last."""
        self._recorded_at: dict[str, float] = {}
        """By host: the moment of the last record that it was heard; monotonic."""
        self._agreed: dict[str, Agreed] = {}
        """By host: what it said when nothing had to be corrected."""
        self._due: dict[str, tuple[int, float]] = {}
        """By host that was heard, and whose record must still say so: the moment in wall time and monotonic time."""

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def forget_others(self, names: Collection[str]) -> None:
        """Forget every host but these."""
        for known in (self._facts, self._recorded_at, self._agreed, self._due):
            for gone in known.keys() - names:
                del known[gone]

    def known(self, tx: Tx, names: Sequence[str]) -> dict[str, Known]:
        """The records of these hosts, before they are asked. Many cost hardly more than one.

        Only the leader may ask: a host learns from the next question that its last answer was heard, and has a lease
        from then on. A process that has lost the lead since that answer must not tell it so.
        """
        self._require_lead(tx)
        up, before = host_records.heard_of(tx, names), drift.before(tx, names)
        unheard = host_records.kinds_of(tx, [name for name in names if name not in self._facts])
        totals = host_records.recorded_totals(tx, names)
        leases = {name: kind.lease_seconds for name, kind in unheard.items()}
        cleared = {name: not to_clear for name, to_clear in up.items()}
        return {name: Known(cleared.get(name, False), leases.get(name), before[name], totals[name]) for name in names}

    def is_news(
        self,
        facts: HostFacts,
        reports: list[GuestReport] | None,
        linked: Collection[str] | None,
        known: Known,
    ) -> bool:
        """Whether the answers of a host must be recorded, or may differ from the records."""
        if not known.cleared or reports is None or facts != self._facts.get(facts.name):
            return True
        if not host_records.totals_of(facts).items() <= known.totals.items():
            return True
        return not agreed.still_agreed(self._agreed.get(facts.name), reports, linked, known.before)

    def recorded(self, facts: HostFacts, agreed: Agreed | None, now: float) -> None:
        """The answers of a host were recorded and compared. `now`: when it was asked, monotonic."""
        name = facts.name
        self._facts[name] = facts
        self._recorded_at[name] = now
        self._due.pop(name, None)
        self._agreed.pop(name, None)
        if agreed is not None:
            self._agreed[name] = agreed

    def again(self, name: str, now: float) -> None:
        """The host has said nothing new. `now`: when it was asked, monotonic."""
        if now - self._recorded_at[name] >= RECORD_SECONDS:
            self._due[name] = (self._clock.now_us(), now)

    async def record(self, names: Iterable[str]) -> None:
        """Record which of these hosts were heard, as far as it is due, in one transaction."""
        due = {name: self._due[name] for name in sorted(names) if name in self._due}
        if not due:
            return

        def write(tx: Tx) -> None:
            self._require_lead(tx)
            host_records.heard_again(tx, list(due), now_us=min(wall for wall, _ in due.values()))

        await self._db.write_async(write)
        for name, (_, heard) in due.items():
            if self._due.pop(name, None) is not None:  # Else the host has left, or said something new.
                self._recorded_at[name] = heard
