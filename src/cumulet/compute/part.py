"""What Compute brings to a process."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from cumulet.clock import Clock
from cumulet.compute.automatic_restart import AutomaticRestart
from cumulet.compute.boot import BOOT
from cumulet.compute.crash_dump import CRASH_DUMP
from cumulet.compute.deletion import DELETION
from cumulet.compute.evacuation import EVACUATION
from cumulet.compute.history import History
from cumulet.compute.host_watch import HostWatch
from cumulet.compute.hosts import hypervisors, require_same
from cumulet.compute.hosts_in_memory import Reload, offered
from cumulet.compute.interfaces import ATTACHMENT, DETACHMENT
from cumulet.compute.leftovers import Leftovers
from cumulet.compute.live_migration import LIVE_MIGRATION
from cumulet.compute.power import POWER_CHANGE
from cumulet.compute.rebuild import REBUILDING
from cumulet.compute.rescue import RESCUE, UNRESCUE
from cumulet.compute.resize import RESIZE
from cumulet.compute.resize_outcome import RESIZE_CONFIRMATION, RESIZE_REVERSION, AutomaticConfirmation
from cumulet.compute.resume_on_boot import ResumeOnBoot
from cumulet.compute.seed import seed_flavors
from cumulet.compute.service import COMPUTE
from cumulet.compute.shelve import SHELVE, UNSHELVE
from cumulet.compute.shelved import OFFLOADING, STARTING, AutomaticOffload
from cumulet.compute.snapshot import SNAPSHOT
from cumulet.compute.stale import overtaken
from cumulet.compute.telling import Tellings
from cumulet.compute.wiring import Wirings
from cumulet.conductor.conductor import Surroundings
from cumulet.conductor.saga import Saga
from cumulet.db.engine import Database
from cumulet.part import CatalogEntry, FirstStart, Part, SettingRefused, declare_all
from cumulet.periodic import Reconciler
from cumulet.settings import Settings

declare_all("cumulet.compute")


def _reconcilers(around: Surroundings) -> Sequence[Reconciler]:
    db, clock, settings = around.db, around.clock, around.settings
    boot = ResumeOnBoot(clock=clock, settings=settings, wake=around.wake)
    watch = HostWatch(
        db=db, clock=clock, settings=settings, hosts=around.hosts, boot=boot, require_lead=around.require_lead
    )
    return (
        watch,
        Wirings(db=db, clock=clock, hosts=around.hosts),
        Tellings(db=db, clock=clock, settings=settings, hosts=around.hosts),
        Leftovers(db=db, clock=clock, settings=settings),
        History(db=db, clock=clock, settings=settings),
        AutomaticRestart(db=db, clock=clock, settings=settings, wake=around.wake, lost=watch.lost),
        AutomaticConfirmation(db=db, clock=clock, settings=settings, wake=around.wake),
        AutomaticOffload(db=db, clock=clock, settings=settings, wake=around.wake),
    )


def _memories(around: Surroundings) -> Sequence[Reconciler]:
    return (Reload(db=around.db, clock=around.clock),)


def _require(settings: Settings) -> None:
    """A host's lease must outlast the change from a conductor that died to another one (see `conductor.leadership`):
    that sees no renewal for a lease and a half, and asks a host twice before it renews the host's."""
    least = 2 * settings.lease_seconds + settings.host_silent_seconds
    if settings.fence_silent_hosts and settings.host_lease_seconds < least:
        raise SettingRefused(
            f"host_lease_seconds: at least {least:g} with these lease_seconds and host_silent_seconds, else guests "
            "end when a conductor dies"
        )


def _mend(db: Database, settings: Settings, clock: Clock) -> None:
    """Nothing to make good, but that it is the same cloud is seen here."""
    db.read(lambda tx: require_same(tx, settings))


def _seed(start: FirstStart) -> None:
    """The flavors ``m1.nano`` to ``m1.large``."""
    seed_flavors(start.db, start.clock)


_SAGAS: tuple[Saga[Any], ...] = (
    ATTACHMENT,
    BOOT,
    CRASH_DUMP,
    DELETION,
    DETACHMENT,
    EVACUATION,
    LIVE_MIGRATION,
    OFFLOADING,
    POWER_CHANGE,
    REBUILDING,
    RESCUE,
    RESIZE,
    RESIZE_CONFIRMATION,
    RESIZE_REVERSION,
    SHELVE,
    SNAPSHOT,
    STARTING,
    UNRESCUE,
    UNSHELVE,
)

COMPUTE_PART = Part(
    service=COMPUTE,
    catalog=CatalogEntry(name="nova", path="/compute/v2.1"),
    hosts_offer=offered,
    hypervisors=hypervisors,
    sagas=tuple(dataclasses.replace(saga, overtaken=overtaken) for saga in _SAGAS),
    reconcilers=_reconcilers,
    memories=_memories,
    require=_require,
    mend=_mend,
    seed=_seed,
)
