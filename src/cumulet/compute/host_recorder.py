"""Records what hosts have said: many in one transaction, because after a start of a conductor all are new to it.

A host's answer waits until the answers before it are recorded, and is recorded with all that wait. If that fails, each
half is recorded by itself, and so on: what one host says, be it hostile, does not keep others from being recorded, and
costs them a few transactions more. Where this process leads no more, or the database is away, all have failed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import agreed, drift, untold
from cumulet.compute import hosts as host_records
from cumulet.compute.agreed import Agreed
from cumulet.compute.heard import Known, Recorded
from cumulet.compute.restored import catch_up, without_newer_guests
from cumulet.compute.resume_on_boot import ResumeOnBoot
from cumulet.compute.store import servers
from cumulet.conductor import findings
from cumulet.conductor.leadership import LeadsNoMore
from cumulet.db.engine import Database, Tx
from cumulet.db.reach import is_away
from cumulet.host.driver import GuestReport, HostFacts
from cumulet.network import attaching
from cumulet.settings import Settings

WATCH = "hosts"
MOST_AT_ONCE = 100
"""Hosts in one transaction. It holds up others for as long as some ten boots do."""
NO_WATCHDOG = "its servers start nowhere else should it fall silent: start its agent anew, so that it has a watchdog"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has answered. `known`: what the records said before it was asked. `new`: its agent has started.
    `cut`: it says that it has more guests than it is believed to have (`believed.reported`)."""

    facts: HostFacts
    reports: list[GuestReport] | None
    linked: Collection[str] | None
    known: Known
    new: bool
    cut: bool = False

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def comparable(self) -> Sequence[GuestReport] | None:
        """The guests to compare with the records. None: it does not say, or nobody knows of a server there."""
        return self.reports if self.reports is not None and (self.reports or self.known.before.revisions) else None


class _Waiting:
    """An answer that is to be recorded."""

    def __init__(self, said: Said) -> None:
        self.said = said
        self.done: Recorded | None = None
        self.failed: Exception | None = None


class HostRecorder:
    """Records the answers that come to one conductor."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        settings: Settings,
        require_lead: Callable[[Tx], None],
        boot: ResumeOnBoot | None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._require_lead = require_lead
        self._boot = boot
        self._waiting: dict[_Waiting, None] = {}
        """Those that are not recorded yet, in the order in which they came."""
        self._writing = asyncio.Lock()

    async def record(self, said: Said) -> Recorded:
        """Record it; what follows from it. Raises what recording it has raised."""
        mine = _Waiting(said)
        self._waiting[mine] = None
        try:
            async with self._writing:
                if mine in self._waiting:
                    await self._record_some(mine)
        finally:
            self._waiting.pop(mine, None)
        if mine.failed is not None:
            raise mine.failed
        assert mine.done is not None
        return mine.done

    async def _record_some(self, mine: _Waiting) -> None:
        """This one, with others that wait. Who is cancelled leaves them: each then records itself and others."""
        others = (one for one in self._waiting if one is not mine)
        await self._record_together([mine, *itertools.islice(others, MOST_AT_ONCE - 1)])

    async def _record_together(self, together: Sequence[_Waiting]) -> None:
        try:
            recorded = await self._db.write_async(lambda tx: self._write(tx, [one.said for one in together]))
        except Exception as error:
            if len(together) > 1 and not (isinstance(error, LeadsNoMore) or is_away(error)):
                half = len(together) // 2
                await self._record_together(together[:half])
                await self._record_together(together[half:])
                return
            for one in together:
                self._ended(one, None, error)
        else:
            for one, done in zip(together, recorded, strict=True):
                self._ended(one, done, None)

    def _ended(self, one: _Waiting, done: Recorded | None, failed: Exception | None) -> None:
        one.done, one.failed = done, failed
        self._waiting.pop(one, None)

    def _write(self, tx: Tx, said: Sequence[Said]) -> list[Recorded]:
        self._require_lead(tx)
        totals = {one.name: one.known.totals for one in said}
        facts = [one.facts for one in said]
        host_records.register(tx, *facts, clock=self._clock, settings=self._settings, totals=totals)
        now_us = self._clock.now_us()
        for one in said:
            if one.new and self._settings.fence_silent_hosts and one.facts.lease_seconds is None:
                findings.note(tx, WATCH, "no-watchdog", NO_WATCHDOG, now_us=now_us, host=one.name)
        # Commands that wait for the welcome may start guests, and their ports need rules before.
        wired = attaching.wired(tx, [one.name for one in said if one.new and "networks" in one.facts.features])
        compared = {one.name: reports for one in said if (reports := one.comparable) is not None}
        told = {one.name for one in said if one.new}
        reported = sorted({report.server_id for name in compared.keys() & told for report in compared[name]})
        generations = drift.generations(tx, reported)
        for one in said:
            if one.new and self._boot is not None and one.name in compared:
                self._boot.settle(tx, one.name, compared[one.name], before=one.known.before.revisions)
        for one in said:
            if one.reports is not None:
                _note_posted(tx, one.name, one.reports, now_us)
        recorded = drift.Records(tx, compared) if compared else None
        if recorded is not None and catch_up(tx, compared, recorded, reconciler=WATCH, now_us=now_us):
            recorded = drift.Records(tx, compared)
        found: dict[str, list[drift.Correction]] = {}
        more = {one.name for one in said if one.cut}
        for one in said:
            if recorded is not None and one.name in compared:
                reports, before = compared[one.name], one.known.before.revisions
                corrections = drift.compare(
                    tx, one.name, reports, linked=_plugged(one), before=before, now_us=now_us, recorded=recorded
                )
                corrections = without_newer_guests(
                    tx,
                    one.name,
                    corrections,
                    reports,
                    recorded.of(one.name, [report.server_id for report in reports]),
                    reconciler=WATCH,
                    keep_unknown=self._settings.keep_unknown_guests,
                    now_us=now_us,
                )
                found[one.name], cut = drift.of_one_round(corrections)
                if cut:
                    more.add(one.name)
        cleared = {one.name for one in said if one.known.cleared}
        for one in said:
            if one.name in cleared or one.name in more or one.reports is None:
                continue
            if not _destroys(found.get(one.name, ())):
                host_records.cleared(tx, one.name)
                cleared.add(one.name)
        after = drift.before(tx, sorted(name for name, left in found.items() if not left and name not in more))
        return [
            Recorded(
                wires=one.name in wired,
                corrections=found.get(one.name, ()),
                generations=_of(compared.get(one.name, ()), generations) if one.new else {},
                cleared=one.name in cleared,
                more=one.name in more,
                agreed=_agreed(one, after.get(one.name)),
            )
            for one in said
        ]


_HERE = sa.select(servers.c.id).where(
    servers.c.id == sa.bindparam("of_id"), servers.c.host == sa.bindparam("of_host"), servers.c.deleted_at_us.is_(None)
)


def _note_posted(tx: Tx, host: str, reports: Sequence[GuestReport], now_us: int) -> None:
    """Guests have posted passwords. Whoever tells their host (`compute.telling`) is told them."""
    for report in reports:
        if report.posted and tx.first(_HERE, {"of_id": report.server_id, "of_host": host}) is not None:
            untold.note(tx, report.server_id, now_us=now_us)


def _destroys(corrections: Sequence[drift.Correction]) -> bool:
    return any(correction.destroy for correction in corrections)


def _of(reports: Sequence[GuestReport], generations: dict[str, int]) -> dict[str, int]:
    mine = (report.server_id for report in reports)
    return {server_id: generations[server_id] for server_id in mine if server_id in generations}


def _agreed(said: Said, after: drift.Before | None) -> Agreed | None:
    """`after`: what the records say of a host of which nothing had to be corrected."""
    if after is None or said.comparable is None:
        return None
    return agreed.agreed(said.comparable, _plugged(said), said.known.before, after)


def _plugged(said: Said) -> Collection[str] | None:
    """An agent that has just started does not know its wiring yet, so it cannot say which ports are plugged."""
    return None if said.new else said.linked
