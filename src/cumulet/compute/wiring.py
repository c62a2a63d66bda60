"""Tells hosts their wirings: before a guest starts, when it has moved, and whenever the records change.

A wiring is read whole from the records (`network.wiring`); hosts refuse one that is older than what they have. A saga
that needs a wiring waits for it. `Wirings` tells all others, and tells again what failed or was lost.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from cumulet.clock import Clock
from cumulet.compute import hosts as host_records
from cumulet.compute import hosts_in_memory, operations
from cumulet.compute.descriptions import Read, Reading
from cumulet.compute.teller import Teller
from cumulet.conductor import findings
from cumulet.conductor.saga import Context, StepFailed
from cumulet.db.engine import Database, Tx
from cumulet.db.transaction import Watch
from cumulet.errors import NotYet
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.wiring import InForce, NotDone, Wiring
from cumulet.network import for_compute as ports_of
from cumulet.network import port_status, trunk_ports, wiring_bounds
from cumulet.network import wiring as network

log = logging.getLogger(__name__)

WATCHED = network.TABLES
"""The tables that wirings are read from, except `hosts`, which is written at every heartbeat. The timer finds what is
new in `hosts`, such as an address."""

TOO_LONG = "wiring-too-long"
"""What is found where the bus does not take the wiring of a host."""
OTHERS_SECONDS = 0.5
"""So long a guest that has moved stands still until the other hosts of its networks have been told where it is. What
they send it meanwhile is lost, as it would be if it stood still."""
SECONDS_BETWEEN = 1.0
"""How soon a change without a notice is seen, such as a host's new address. Also the longest rest after a round."""
SECONDS_UNTIL_TOLD_AGAIN = 60.0
"""How soon a host is told the same again. That puts right what somebody has changed on it."""
SECONDS_UNTIL_RETRY = 5.0
"""The same, if the host could not do a part of it."""


async def wire(hosts: Hosts, read: Read, clock: Clock, host: str, *, again: bool = True) -> InForce:
    """Tell one host its wiring; what is in force there. HostError if that fails or takes too long.

    `again`: also if it is what the host was told last.
    """
    return await _wire(hosts, Reading(read), clock, host, again=again)


async def _wire(hosts: Hosts, reading: Reading, clock: Clock, host: str, *, again: bool) -> InForce:
    async def describe(revision: int) -> Wiring:
        return replace(await reading.of(host), revision=revision)

    return await hosts.wire(host, describe, now_us=clock.now_us(), again=again)


def require_wiring_hosts(tx: Tx) -> None:
    """NotYet (501) if no host of this cloud can give a port packets."""
    if hosts_in_memory.offered(tx, "networks") is False:
        raise NotYet(
            "No host of this cloud can wire guests (`cumulet doctor` says why, started as root on Linux it can): "
            'ask for networks "none" (2.37 or later).',
            reason="NO_GUEST_NETWORKS",
        )


# -- what sagas wait for


async def require_wired(context: Context, host: str, server_id: str) -> frozenset[str]:
    """Put the rules of a server's ports in force on a host, before its guest is there. StepFailed if that fails.

    Returns their ids; none if the server has no ports.
    """
    port_ids = frozenset(await context.read(lambda tx: network.ports_of_server(tx, server_id)))
    if not port_ids:
        return port_ids
    in_force = await wire(context.hosts, context.read, context.clock, host)
    missing = sorted(port_ids - set(in_force.ports))
    if missing:
        reasons = "; ".join(f"{entry.subject}: {entry.reason}" for entry in in_force.not_done)
        raise StepFailed(
            "NOT_WIRED", "The server's network could not be set up on its host.",
            f"{host} has no rules for {', '.join(missing)} ({reasons or 'it does not say why'})",
        )  # fmt: skip
    return port_ids


async def learn_links(context: Context, host: str, server_id: str) -> None:
    """Record which of a server's ports its host says are plugged: those are ACTIVE, the others DOWN.

    A host that is down is asked when it is back (`host_watch`).
    """
    if not await context.read(lambda tx: ports_of.has_ports(tx, server_id)):
        return
    answer = await operations.unless_down(context, host, m.AskWiring())
    if answer is None:
        return
    linked = answer.linked
    if await context.read(lambda tx: port_status.changed_links(tx, host, linked, [server_id])):
        await context.record(lambda tx: port_status.record_links(tx, host, linked, [server_id]))


async def tell_again(context: Context, host: str, server_id: str) -> None:
    """Tell a host that a server is there again: meanwhile it was told that the server is elsewhere."""
    if await context.read(lambda tx: ports_of.has_ports(tx, server_id)):
        await _tell(context, [host])


async def switch_peers(context: Context, host: str, server_id: str) -> None:
    """A server belongs to another host now. Tell that host and all hosts with ports of its networks, all at once.

    The guest stands still until its own host has answered, and for at most `OTHERS_SECONDS` until the others have: one
    that hangs, or is hostile, must not keep others' guests. What `Wirings` has told them since the commit is not told
    again. Nothing waits for a host that cannot be told now; `Wirings` tells it later.
    """
    others = await context.read(
        lambda tx: network.hosts_of_networks(tx, server_id, partial(hosts_in_memory.for_routers, tx))
    )
    if not others:
        return
    await _tell(context, [host, *(other for other in others if other != host)], again=False)


async def _tell(context: Context, hosts: Sequence[str], *, again: bool = True) -> None:
    """The first of them is waited for; the others only for a while."""
    reading = Reading(context.read)
    first, *others = (
        asyncio.create_task(_wire(context.hosts, reading, context.clock, host, again=again), name=f"tell-{host}")
        for host in hosts
    )
    try:
        await asyncio.wait([first])
        late = (await asyncio.wait(others, timeout=OTHERS_SECONDS))[1] if others else set()
    finally:
        for task in (first, *others):
            task.cancel()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
    for host, task, answer in zip(hosts, (first, *others), answers, strict=True):
        if task in late:
            log.warning("%s has not answered where a server is now; it is told again later", host)
        elif isinstance(answer, m.HostError):
            log.warning("%s cannot be told where a server is now, will retry: %s", host, answer)
        elif isinstance(answer, BaseException):
            raise answer


# -- what is told on event and on timer


def _told(tx: Tx) -> list[str]:
    """Hosts that are told of every change: those with packets, and those that carry subports, which come and go while
    their guest runs."""
    return sorted({*hosts_in_memory.with_packets(tx), *host_records.heard_of(tx, trunk_ports.hosts(tx))})


class Wirings(Teller):
    """Tells each host with packets its wiring: when the records change, and on a timer.

    A commit that writes one of `WATCHED` begins a round at once. Other processes send notices of their commits
    (`conductor.conductor`); the timer finds changes whose notice was lost, and reads nothing where none can be: where
    only this process writes. A change that comes while hosts are told is told after a rest of as long as that took. So
    many changes in short time are told together, and take at most half of the time; one alone does not wait.
    """

    def __init__(self, *, db: Database, clock: Clock, hosts: Hosts) -> None:
        super().__init__(name="wirings", clock=clock, seconds=SECONDS_BETWEEN, db=db)
        self._reading = Reading(db.read_async, self._beside_groups)
        self._hosts = hosts
        self._heard: dict[str, tuple[int, float]] = {}
        """By host: the revision in its last answer, and when that was seen; monotonic."""
        self._undone: dict[str, set[NotDone]] = {}
        """By host: the parts that it could not do, each of which is logged once."""
        self._too_long: set[str] = set()
        """Hosts whose wiring the bus does not take, of which that was said."""
        self._again: set[str] = set()
        """Hosts that are being told and for which a new round came: their wiring may have been read before it."""
        self._commits = itertools.count(1)
        self._last_commit = self._last_beside_groups = 0
        """The numbers of the last commits to what wirings are read from, and to what is read for more than groups."""
        self._records: object = None
        """Equal to what it was where nothing was written that wirings are read from. None: nobody knows."""
        self._told_of: dict[str, object] = {}
        """By host: `_records` when the wiring was read that it was told last; while it is told, those before."""
        self._told_revision: dict[str, int] = {}
        """By host: the revision that it had when we told it last. A saga may have told it another since, of records
        that were others for a moment."""

    def _watch_commits(self, hear: Callable[[], None]) -> Sequence[Watch]:
        watches = [
            self._db.watch(WATCHED - network.GROUPS, self._hear_beside_groups),
            self._db.watch(WATCHED, hear),
        ]
        self._hear_beside_groups()  # Nobody has heard what was written before.
        self._last_commit = next(self._commits)
        return watches

    def kill(self) -> None:
        super().kill()
        self._reading.kill()

    async def round(self) -> None:
        """Tell all hosts. A slow one (up to `WIRING_SECONDS`) delays no other host and no further round."""
        began = self._clock.monotonic()
        last_commit = self._last_commit
        names, of_hosts = await self._db.look_up(lambda tx: (_told(tx), hosts_in_memory.as_wired(tx)))
        # Notices of what other processes write may be lost.
        self._records = None if not self._watched or of_hosts is None else (last_commit, of_hosts)
        for known in (self._heard, self._undone, self._told_of, self._told_revision, self._reading.hosts_then):
            for gone in known.keys() - names:
                del known[gone]
        self._too_long &= set(names)
        for name in names:
            news = self._records is None or self._told_of.get(name) != self._records
            if name in self._telling:
                if news:
                    self._again.add(name)
            elif name in self._hosts.names and (news or self._told_by_others(name) or self._is_due(name)):
                self._begin(name, self._host(name))
        if self._telling:
            told = asyncio.gather(*self._telling.values(), return_exceptions=True)
            woken = asyncio.ensure_future(self._woken.wait())
            try:
                await asyncio.wait((told, woken), timeout=SECONDS_BETWEEN, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
        if self._woken.is_set():
            await self._rest(began)

    async def _rest(self, began: float) -> None:
        await self._clock.sleep(min(self._clock.monotonic() - began, SECONDS_BETWEEN))

    def _ended(self, key: str, telling: asyncio.Task[None]) -> None:
        super()._ended(key, telling)
        if key in self._again:  # A round came after its last telling. Nobody tells this host now, so begin another.
            self._woken.set()

    async def _host(self, name: str) -> None:
        while True:
            began = self._clock.monotonic()
            await self._tell(name)
            if name not in self._again:
                return
            await self._rest(began)

    async def _tell(self, name: str) -> None:
        self._again.discard(name)
        again = self._is_due(name)
        last_commit = self._last_commit
        self._told_of[name] = self._records
        try:
            await _wire(self._hosts, self._reading, self._clock, name, again=again)
        except BaseException as error:
            self._told_of.pop(name, None)  # It may have been removed meanwhile.
            if not isinstance(error, m.HostError):
                raise
            log.debug("%s cannot be wired, will retry: %s", name, error)
            if isinstance(error, m.MessageTooLong) and name not in self._too_long:
                await self._say_too_long(name, error)
            return
        self._too_long.discard(name)
        # Hosts may have been as they are again now, and were not when this was read.
        self._told_of[name] = (last_commit, self._reading.hosts_then.get(name))
        if (told := self._hosts.told(name)) is not None:
            self._told_revision[name] = told[0].revision
        self._note_answer(name)

    async def _say_too_long(self, name: str, error: m.MessageTooLong) -> None:
        """Nothing is changed in a host's network any more until its wiring is shorter, whoever made it so long."""
        wiring = await self._reading.of(name)
        sizes = {one.id: len(msgspec.json.encode(one)) for of in (wiring.ports, wiring.groups) for one in of}
        largest = await self._db.read_async(lambda tx: wiring_bounds.largest_project(tx, sizes))
        whose = f"most of it is of project {largest[0]}" if largest is not None else "no port of a project is in it"
        words = f"{whose}: move servers away, or have it use fewer addresses, groups or DHCP options"
        log.warning("%s: its wiring is too long, nothing in its network changes any more; %s (%s)", name, words, error)
        now_us = self._clock.now_us()
        await self._db.write_async(
            lambda tx: findings.note(tx, "wirings", TOO_LONG, f"not told; {words}", now_us=now_us, host=name)
        )
        self._too_long.add(name)

    def _told_by_others(self, name: str) -> bool:
        told = self._hosts.told(name)
        return told is not None and told[0].revision != self._told_revision.get(name)

    def _note_answer(self, name: str) -> None:
        """Remember when the last answer of a host was seen first, ours or a saga's, and log what could not be done."""
        told = self._hosts.told(name)
        if told is None:
            return
        _, answer = told
        known = self._heard.get(name)
        if known is None or known[0] != answer.revision:
            self._heard[name] = (answer.revision, self._clock.monotonic())
            for entry in set(answer.not_done) - self._undone.get(name, set()):
                log.warning("%s: %s is not wired: %s", name, entry.subject or "its network", entry.reason)
            self._undone[name] = set(answer.not_done)

    def _is_due(self, name: str) -> bool:
        """Whether a host is to be told its wiring even if we or a saga have told it the same: that was long ago."""
        self._note_answer(name)
        if self._hosts.told(name) is None:
            return True
        _, at = self._heard[name]
        # What could not be done is tried again sooner.
        return self._clock.monotonic() - at >= (SECONDS_UNTIL_RETRY if self._undone[name] else SECONDS_UNTIL_TOLD_AGAIN)

    def _hear(self, loop: asyncio.AbstractEventLoop) -> None:
        self._last_commit = next(self._commits)
        super()._hear(loop)

    def _hear_beside_groups(self) -> None:
        self._last_beside_groups = next(self._commits)

    def _beside_groups(self) -> object:
        return self._last_beside_groups if self._watched else None
