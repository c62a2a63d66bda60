"""What the scheduler knows of hosts, kept in memory: reading all hosts for a choice costs more than the rest of a boot.

Theory of operation. Code that writes a host, an inventory or an allocation calls `tx.touch(name)`. At the end of that
transaction the host is read once more, and after the commit memory takes what was read: it never knows what was not
committed. Commits may be heard of in another order than they were made, each on a thread of its own: so readings are
numbered, and of a host an earlier one never replaces a later one.

A choice is made from memory. Then the chosen host is read in the transaction of the choice. If memory was wrong
(another transaction has claimed there and is not committed yet), memory's view is replaced and the choice is made
again. So the choice was right in its transaction, and the claim decides. A host that has just got room may be missed.

With PostgreSQL other processes write too. Room that they have taken is found as above; where no host fits, all hosts
are read. `load` is repeated on a timer, so that changes of others, or a mistake here, are found.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import host_views, scheduler
from cumulet.compute import hosts as host_records
from cumulet.compute.scheduler import Choice, HostView, Need
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Periodic
from cumulet.placement.store import resource_providers

log = logging.getLogger(__name__)

RELOAD_SECONDS = 30.0
"""How often all hosts are read again. With 10,000 hosts this takes a hundredth of a core's time."""

FOREMOST = 64
"""The choice is made among this many hosts with most room, if one of them fits; only otherwise among all."""
_NAME = sa.select(resource_providers.c.name).where(resource_providers.c.id == sa.bindparam("of_id"))


class HostsInMemory:
    """`db.engine.Keeper` of one database's hosts."""

    def __init__(self) -> None:
        self._loading = asyncio.Lock()
        """Hosts are read once at a time: each reading has its own `_meanwhile`."""
        self._lock = threading.Lock()
        self._views: dict[str, HostView] = {}
        self._by_room: list[tuple[float, float, str]] = []
        """The hosts' names, those with most room first (as `scheduler.pick` weighs it)."""
        self._for_routers: tuple[str, ...] | None = None
        """The hosts that can have routers; None: not known yet."""
        self._meanwhile: dict[str, HostView | None] | None = None
        """What is committed while all hosts are read."""
        self._numbers = itertools.count(1)
        self._latest: dict[str, int] = {}
        """By host: the number of the reading that memory has taken."""
        self._under_way: weakref.WeakSet[_Correction] = weakref.WeakSet()
        """Those of transactions that are not committed, or were a moment ago. One that fails drops its own."""

    async def load(self, db: Database) -> list[str]:
        """Read all hosts. Returns the names of those that memory was wrong about: none, unless others write, too."""
        async with self._loading:
            return await self._load(db)

    async def _load(self, db: Database) -> list[str]:
        with self._lock:
            self._meanwhile = {}
        try:
            read = await db.read_async(lambda tx: {view.name: view for view in host_views.views(tx)})
        finally:
            with self._lock:
                meanwhile, self._meanwhile = self._meanwhile, None
        with self._lock:
            under_way = {name for correction in self._under_way for name in correction.now}
            before = self._views
            self._views = {name: view for name, view in (read | meanwhile).items() if view is not None}
            self._by_room = sorted(_rank(view) for view in self._views.values())
            self._for_routers = None
            for gone in self._latest.keys() - self._views.keys() - under_way:
                del self._latest[gone]
            return sorted(
                name
                for name in before.keys() | self._views.keys()
                if name not in meanwhile and name not in under_way and before.get(name) != self._views.get(name)
            )

    def correction(self, tx: Tx, touched: Iterable[str | int]) -> Callable[[], None]:
        """What to call once `tx` is committed. `touched`: names of hosts, or ids of their providers."""
        keys = {key if isinstance(key, str) else tx.scalar(_NAME, {"of_id": key}) for key in touched}
        names = sorted(name for name in keys if name is not None)
        number = next(self._numbers)  # Before reading: whoever begins after our commit reads later, and has more.
        read = host_views.views_of(tx, names)
        made = _Correction(self, number, {name: read.get(name) for name in names})
        with self._lock:
            self._under_way.add(made)
        return made

    def correct(self, correction: _Correction) -> None:
        """What it has read is committed."""
        with self._lock:
            self._under_way.discard(correction)
            for name, view in correction.now.items():
                if self._latest.get(name, 0) < correction.number:
                    self._latest[name] = correction.number
                    if self._meanwhile is not None:
                        self._meanwhile[name] = view
                    self._set(name, view)

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
        """The host that `need` names; else the hosts with most room, and those that it likes or dislikes."""
        with self._lock:
            names = [name for *_, name in self._by_room[:FOREMOST]] if need.named is None else [need.named]
            return {name: self._views[name] for name in (*names, *need.liked) if name in self._views}

    def for_routers(self) -> tuple[str, ...]:
        """As `hosts.AllHosts.for_routers`."""
        with self._lock:
            if self._for_routers is None:
                offered = {name: _serves(view) for name, view in self._views.items()}
                serving = {name: features for name, features in offered.items() if features is not None}
                self._for_routers = tuple(host_records.among(serving))
            return self._for_routers


class _Correction:
    """What a transaction has read of the hosts that it writes, to be called after its commit."""

    def __init__(self, keeper: HostsInMemory, number: int, now: dict[str, HostView | None]) -> None:
        self._keeper = keeper
        self.number = number
        self.now = now

    def __call__(self) -> None:
        self._keeper.correct(self)


class Reload(Periodic):
    """Keeps hosts in memory while it is started, and reads them all again on a timer.

    On SQLite nobody else writes, so a difference is a mistake: it is mended and logged.
    """

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
        if wrong and self._db.embedded:
            log.warning("memory was wrong of %d hosts: %s", len(wrong), ", ".join(wrong[:10]))


def pick(tx: Tx, need: Need) -> Choice:
    """`scheduler.pick` among all hosts; from memory, where this process keeps it."""
    keeper = tx.keeper
    if not isinstance(keeper, HostsInMemory):
        return scheduler.pick(host_views.views(tx), need)
    found = _pick(tx, need, keeper.foremost(need))
    # A disliked host is chosen only if no other fits.
    if found.host is not None and (need.named is not None or need.liked.get(found.host, 0) >= 0):
        return found
    found = _pick(tx, need, keeper.views())
    return found if found.host is not None or tx.alone else scheduler.pick(host_views.views(tx), need)


def for_routers(tx: Tx) -> tuple[str, ...]:
    """`hosts.AllHosts.for_routers`."""
    memory = _in_memory(tx)
    return memory.for_routers() if memory is not None else _as_read(tx).for_routers


def with_packets(tx: Tx) -> list[str]:
    """`hosts.AllHosts.with_packets`."""
    memory = _in_memory(tx)
    if memory is None:
        return list(_as_read(tx).with_packets)
    views = memory.views().values()
    return sorted(view.name for view in views if view.answers and host_records.has_packets(view.features))


def as_wired(tx: Tx) -> object:
    """Equal in two transactions if all is that wirings need of hosts; None where this process does not keep it."""
    memory = _in_memory(tx)
    if memory is None:
        return None
    return memory.for_routers(), {view.name: (view.address, view.features) for view in memory.views().values()}


def offered(tx: Tx, feature: str) -> bool | None:
    """Whether any host, up or down, has reported this of `HostFacts.features`. None: no host has reported any."""
    memory = _in_memory(tx)
    if memory is not None:
        known = frozenset().union(*(view.features for view in memory.views().values()))
    else:
        known = _as_read(tx).offered
    return feature in known if known else None


def _in_memory(tx: Tx) -> HostsInMemory | None:
    """Memory that is what this transaction would read: nobody else writes, and it has written nothing of hosts."""
    keeper = tx.keeper
    return keeper if isinstance(keeper, HostsInMemory) and tx.alone and not tx.touched else None


_KEPT = "all hosts"


class _Kept(msgspec.Struct, frozen=True):
    version: tuple[object, ...]
    hosts: host_records.AllHosts


def _as_read(tx: Tx) -> host_records.AllHosts:
    """As this transaction reads all hosts. Where other processes write, too, what another transaction of ours has read
    counts while the version is the same; not in one that has itself written of hosts."""
    if tx.alone or tx.touched:
        return host_records.all_hosts(tx)
    version, kept = host_records.version(tx), tx.kept.get(_KEPT)
    if not isinstance(kept, _Kept) or kept.version != version:
        tx.kept[_KEPT] = kept = _Kept(version, host_records.all_hosts(tx))
    return kept.hosts


def _pick(tx: Tx, need: Need, known: dict[str, HostView]) -> Choice:
    """Choose among `known`; correct it until the chosen host is as this transaction sees it."""
    unsure = {key if isinstance(key, str) else tx.scalar(_NAME, {"of_id": key}) for key in tx.touched}
    for name in unsure & known.keys():
        _replace(known, name, host_views.view(tx, name))
    while (choice := scheduler.pick(known.values(), need)).host is not None:
        now = host_views.view(tx, choice.host)
        if now == known[choice.host]:
            break
        _replace(known, choice.host, now)
    return choice


def _serves(view: HostView | None) -> frozenset[str] | None:
    """The features of a host that may have routers; None for others."""
    return view.features if view is not None and view.may_have_routers else None


def _rank(view: HostView) -> tuple[float, float, str]:
    return (-view.free_memory_mib, -view.free_vcpus, view.name)


def _replace(known: dict[str, HostView], name: str, view: HostView | None) -> None:
    if view is None:
        known.pop(name, None)
    else:
        known[name] = view
