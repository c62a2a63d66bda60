"""What the scheduler knows of hosts, kept in memory: to read it all for each choice costs more than the rest of a boot.

Theory of operation. Whatever writes a host, an inventory or an allocation says `tx.touch(name)`. At the end of that
transaction the host is read once more, and after the commit memory says what was read: it never knows what was not
committed. A choice is made from memory; then the chosen host is read in the transaction of the choice, and where
memory was wrong of it (another transaction has claimed there and is not committed yet) it is chosen again. So what is
chosen was right in its transaction, and the claim decides. A host that has room only since a moment may be missed.

With PostgreSQL other processes write too. What they made smaller is found as above; where no host will do, all are
read. `load` is repeated now and then, so that neither they nor a mistake here stay unnoticed.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
import threading
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import hosts as host_records
from cumulet.compute import scheduler
from cumulet.compute.scheduler import Choice, HostView, Need
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Periodic
from cumulet.placement.store import resource_providers

log = logging.getLogger(__name__)

RELOAD_SECONDS = 30.0
"""How often all is read again: a hundredth of a core's time with 10,000 hosts."""

FOREMOST = 64
"""Of so many hosts, those with most room, one is chosen if any of them will do: then the others need no look."""
_NAME = sa.select(resource_providers.c.name).where(resource_providers.c.id == sa.bindparam("of_id"))


class HostsInMemory:
    """`db.engine.Keeper` of one database's hosts."""

    def __init__(self) -> None:
        self._loading = asyncio.Lock()
        """One reading of all at a time: each has its own `_meanwhile`."""
        self._lock = threading.Lock()
        self._views: dict[str, HostView] = {}
        self._by_room: list[tuple[float, float, str]] = []
        """The hosts' names, those with most room first (as `scheduler.pick` weighs it)."""
        self._for_routers: tuple[str, ...] | None = None
        """Those that can have routers; None: to be looked for among all."""
        self._meanwhile: dict[str, HostView | None] | None = None
        """What was committed while all is being read."""

    async def load(self, db: Database) -> list[str]:
        """Read all. The names of hosts of which memory was wrong: none, unless others write to the database, too."""
        async with self._loading:
            return await self._load(db)

    async def _load(self, db: Database) -> list[str]:
        with self._lock:
            self._meanwhile = {}
        try:
            read = await db.read_async(lambda tx: {view.name: view for view in host_records.views(tx)})
        finally:
            with self._lock:
                meanwhile, self._meanwhile = self._meanwhile, None
        with self._lock:
            before = self._views
            self._views = {name: view for name, view in (read | meanwhile).items() if view is not None}
            self._by_room = sorted(_rank(view) for view in self._views.values())
            self._for_routers = None
            return sorted(
                name
                for name in before.keys() | self._views.keys()
                if name not in meanwhile and before.get(name) != self._views.get(name)
            )

    def correction(self, tx: Tx, touched: Iterable[str | int]) -> Callable[[], None]:
        """What is to be called once `tx` is committed. touched: names of hosts, or ids of their providers."""
        names = {key if isinstance(key, str) else tx.scalar(_NAME, {"of_id": key}) for key in touched}
        now = {name: host_records.view(tx, name) for name in names if name is not None}

        def correct() -> None:
            with self._lock:
                if self._meanwhile is not None:
                    self._meanwhile.update(now)
                for name, view in now.items():
                    self._set(name, view)

        return correct

    def _set(self, name: str, view: HostView | None) -> None:
        before = self._views.pop(name, None)
        if _serves(before) != _serves(view):
            self._for_routers = None
        if before is not None:
            del self._by_room[bisect.bisect_left(self._by_room, _rank(before))]
        if view is not None:
            self._views[name] = view
            bisect.insort(self._by_room, _rank(view))

    def views(self) -> dict[str, HostView]:
        """All that is known."""
        with self._lock:
            return dict(self._views)

    def foremost(self, need: Need) -> dict[str, HostView]:
        """Those that will be chosen from, unless none of them fits."""
        with self._lock:
            names = [name for *_, name in self._by_room[:FOREMOST]]
            return {name: self._views[name] for name in (*names, *need.liked) if name in self._views}

    def for_routers(self) -> tuple[str, ...]:
        """As `hosts.for_routers`."""
        with self._lock:
            if self._for_routers is None:
                offered = {name: _serves(view) for name, view in self._views.items()}
                serving = {name: features for name, features in offered.items() if features is not None}
                self._for_routers = tuple(host_records.among(serving))
            return self._for_routers


class Reload(Periodic):
    """Has memory for as long as it is started, and reads all of it anew now and then: on SQLite it finds nothing then,
    or there is a mistake, which it mends."""

    def __init__(self, *, db: Database, clock: Clock) -> None:
        super().__init__(name="hosts-in-memory", clock=clock, seconds=RELOAD_SECONDS)
        self._keeper = HostsInMemory()
        self._db = db

    async def start(self) -> None:
        self._db.keeper = self._keeper
        await self._keeper.load(self._db)
        await super().start()

    def kill(self) -> None:
        self._db.keeper = None
        super().kill()

    async def round(self) -> None:
        wrong = await self._keeper.load(self._db)
        if wrong and self._db.is_sqlite:
            log.warning("memory was wrong of %d hosts: %s", len(wrong), ", ".join(wrong[:10]))


def pick(tx: Tx, need: Need) -> Choice:
    """`scheduler.pick` among all hosts, from memory where there is one."""
    keeper = tx.keeper
    if not isinstance(keeper, HostsInMemory):
        return scheduler.pick(host_records.views(tx), need)
    if need.named is None:
        found = _pick(tx, need, keeper.foremost(need))
        # Disliked hosts are chosen only if all others are out of the question.
        if found.host is not None and need.liked.get(found.host, 0) >= 0:
            return found
    found = _pick(tx, need, keeper.views())
    return found if found.host is not None or tx.alone else scheduler.pick(host_records.views(tx), need)


def for_routers(tx: Tx) -> tuple[str, ...]:
    """`hosts.for_routers`, from memory where nobody else writes and this transaction has written nothing of hosts."""
    keeper = tx.keeper
    if isinstance(keeper, HostsInMemory) and tx.alone and not tx.touched:
        return keeper.for_routers()
    return tuple(host_records.for_routers(tx))


def with_packets(tx: Tx) -> list[str]:
    """`hosts.with_packets`, from memory where nobody else writes."""
    keeper = tx.keeper
    if not isinstance(keeper, HostsInMemory) or not tx.alone or tx.touched:
        return host_records.with_packets(tx)
    views = keeper.views().values()
    return sorted(view.name for view in views if view.answers and host_records.has_packets(view.features))


def offered(tx: Tx, feature: str) -> bool | None:
    """Whether any host, be it silent now, has reported this of `HostFacts.features`. None: none has reported any."""
    keeper = tx.keeper
    if isinstance(keeper, HostsInMemory) and tx.alone and not tx.touched:
        known = [view.features for view in keeper.views().values()]
    else:
        known = [kind.features for _, kind in host_records.kinds(tx)]
    return any(feature in features for features in known) if any(known) else None


def _pick(tx: Tx, need: Need, known: dict[str, HostView]) -> Choice:
    """Among `known`, which is corrected until the host chosen is what this transaction sees."""
    unsure = {key if isinstance(key, str) else tx.scalar(_NAME, {"of_id": key}) for key in tx.touched}
    for name in unsure & known.keys():
        _replace(known, name, host_records.view(tx, name))
    while (choice := scheduler.pick(known.values(), need)).host is not None:
        now = host_records.view(tx, choice.host)
        if now == known[choice.host]:
            break
        _replace(known, choice.host, now)
    return choice


def _serves(view: HostView | None) -> frozenset[str] | None:
    """What a host offers that is in service and may have routers."""
    return view.features if view is not None and view.may_have_routers else None


def _rank(view: HostView) -> tuple[float, float, str]:
    return (-view.free_memory_mib, -view.free_vcpus, view.name)


def _replace(known: dict[str, HostView], name: str, view: HostView | None) -> None:
    if view is None:
        known.pop(name, None)
    else:
        known[name] = view
