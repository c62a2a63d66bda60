"""A conductor: a runner that carries operations, reconcilers that run while it leads, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from cumulet.clock import Clock
from cumulet.conductor.leadership import LEASES_GIVEN_BACK, Leadership
from cumulet.conductor.runner import BeforeStep, Runner
from cumulet.conductor.saga import Saga
from cumulet.conductor.without_bus import WithoutBus
from cumulet.db.engine import Database, Tx
from cumulet.db.notices import Listening
from cumulet.db.transaction import WRITTEN
from cumulet.fleet.hosts import Hosts
from cumulet.periodic import Reconciler
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.wake import OPERATIONS_BEGUN, Wake

ReconcilerT = TypeVar("ReconcilerT")


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What reconcilers may reach."""

    db: Database
    clock: Clock
    settings: Settings
    hosts: Hosts
    wake: Wake
    require_lead: Callable[[Tx], None]
    """Raises in a transaction of a process whose reconcilers are another one's by now (`Leadership.require`)."""


class Conductor:
    """Carries operations, and reconciles hosts and records while it holds the lease. `name` is unique per start."""

    def __init__(
        self,
        sagas: Mapping[str, Saga[Any]],
        reconcilers: Callable[[Surroundings], Sequence[Reconciler]],
        memories: Callable[[Surroundings], Sequence[Reconciler]],
        *,
        db: Database,
        clock: Clock,
        settings: Settings,
        hosts: Hosts,
        name: str,
        alone: bool,
        before_step: BeforeStep | None = None,
        wake: Wake | None = None,
        space: Space | None = None,
    ) -> None:
        """`alone`: no other conductor can be on the same database. `wake`: told of the operations that reconcilers
        begin; by default this conductor's own runner."""
        self._alone = alone
        self.runner = Runner(
            db=db,
            clock=clock,
            settings=settings,
            hosts=hosts,
            sagas=sagas,
            name=name,
            alone=alone,
            before_step=before_step,
            space=space,
        )
        around = Surroundings(
            db=db,
            clock=clock,
            settings=settings,
            hosts=hosts,
            wake=wake or self.runner,
            require_lead=self._require_lead,
        )
        self.reconcilers: tuple[Reconciler, ...] = tuple(reconcilers(around))
        self.memories: tuple[Reconciler, ...] = tuple(memories(around))
        self.leadership = Leadership(
            db=db,
            clock=clock,
            name="reconcilers",
            owner=name,
            seconds=settings.lease_seconds,
            alone=alone,
            led=self.reconcilers,
            bus=WithoutBus(hosts, settings.lease_seconds, alone=alone),
        )
        heard: dict[str, Callable[[str], None]] = {
            OPERATIONS_BEGUN: self.runner.poke,
            LEASES_GIVEN_BACK: self.leadership.look,
            WRITTEN: db.hear_written,
        }
        self.elsewhere = Listening(db=db, clock=clock, hear=heard)

    def reconciler(self, kind: type[ReconcilerT]) -> ReconcilerT:
        """The reconciler of this class."""
        (found,) = (r for r in self.reconcilers if isinstance(r, kind))
        return found

    def _require_lead(self, tx: Tx) -> None:
        self.leadership.require(tx)

    async def start(self) -> None:
        """Start. If it leads, hosts are known when this returns; from then on operations are carried."""
        await self.leadership.start()
        for memory in self.memories:
            await memory.start()
        await self.runner.start()
        await self.elsewhere.start()

    async def stop(self) -> None:
        await self.elsewhere.stop()
        await self.runner.stop()
        if not self._alone:
            await self.runner.give_back()
        await self.leadership.stop()
        for memory in self.memories:
            await memory.stop()
