"""Tells hosts their wirings: before a guest starts, when it has moved, and whenever the records change.

A wiring is read whole from the records (`network.wiring`); hosts refuse one that is older than what they have. A saga
that needs a wiring waits for it. `Wirings` tells all others, and tells again what failed or was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from msgspec.structs import replace

from cumulet.clock import Clock
from cumulet.compute import hosts as host_records
from cumulet.compute import hosts_in_memory, operations
from cumulet.conductor.saga import Context, StepFailed
from cumulet.db.engine import Database, Tx
from cumulet.db.transaction import Watch
from cumulet.errors import NotYet
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.wiring import (
    BANDWIDTH_LIMITS,
    DSCP_MARKS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    METERING,
    PORT_NAMES,
    TRUNKS,
    FloatingIp,
    InForce,
    NotDone,
    Port,
    Router,
    Wiring,
)
from cumulet.network import for_compute as ports_of
from cumulet.network import port_status, trunk_ports
from cumulet.network import wiring as network
from cumulet.periodic import Periodic

log = logging.getLogger(__name__)
T = TypeVar("T")

WATCHED = network.TABLES
"""The tables that `described` reads, except `hosts`, which is written at every heartbeat. The timer finds what is new
in `hosts`, such as an address."""

SECONDS_BETWEEN = 1.0
"""How soon a change without a notice is seen, such as a host's new address. Also the longest rest after a round."""
SECONDS_UNTIL_TOLD_AGAIN = 60.0
"""How soon a host is told the same again. That puts right what somebody has changed on it."""
SECONDS_UNTIL_RETRY = 5.0
"""The same, if the host could not do a part of it."""


class Read(Protocol):
    """Runs a function in a transaction that only reads."""

    def __call__(self, fn: Callable[[Tx], T], /) -> Awaitable[T]: ...


def described(tx: Tx, host: str) -> Wiring:
    """The wiring of a host as the records are now, without a revision.

    Fields for features that the host does not offer are left out: an agent of the version before refuses a wiring
    with a field that it does not know.
    """
    addresses_of, router_hosts = partial(host_records.addresses, tx), partial(hosts_in_memory.for_routers, tx)
    made = network.wiring(tx, host, addresses_of, router_hosts)
    kept = host_records.kind_of(tx, host).features
    if BANDWIDTH_LIMITS not in kept:
        made = replace(made, ports=tuple(map(_unlimited, made.ports)))
    if DSCP_MARKS not in kept:
        made = replace(made, ports=tuple(replace(port, dscp_mark=None) for port in made.ports))
    if FLOATING_IP_LIMITS not in kept:
        routers = (replace(one, floating_ips=tuple(map(_unlimited, one.floating_ips))) for one in made.routers)
        made = replace(made, routers=tuple(routers))
    if METERING not in kept:
        made = replace(made, routers=tuple(replace(one, meters=()) for one in made.routers))
    if GATEWAY_LIMITS not in kept:
        made = replace(made, routers=tuple(map(_unlimited, made.routers)))
    if TRUNKS not in kept:
        made = replace(made, ports=tuple(port for port in made.ports if port.carried is None))
    if PORT_NAMES not in kept:
        made = replace(made, networks=tuple(replace(one, names=()) for one in made.networks))
    return made


LimitedT = TypeVar("LimitedT", Port, FloatingIp, Router)


def _unlimited(limited: LimitedT) -> LimitedT:
    return replace(limited, egress_limit=None, ingress_limit=None)


async def wire(hosts: Hosts, read: Read, clock: Clock, host: str, *, again: bool = True) -> InForce:
    """Tell one host its wiring; what is in force there. HostError if that fails or takes too long.

    `again`: also if it is what the host was told last.
    """

    async def describe(revision: int) -> Wiring:
        return replace(await read(lambda tx: described(tx, host)), revision=revision)

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

    The guest stands still until they have answered. What `Wirings` has told them since the commit is not told again.
    Nothing waits for a host that cannot be told now; `Wirings` tells it later.
    """
    others = await context.read(
        lambda tx: network.hosts_of_networks(tx, server_id, partial(hosts_in_memory.for_routers, tx))
    )
    if not others:
        return
    await _tell(context, [host, *(other for other in others if other != host)], again=False)


async def _tell(context: Context, hosts: Sequence[str], *, again: bool = True) -> None:
    told = (wire(context.hosts, context.read, context.clock, host, again=again) for host in hosts)
    for host, answer in zip(hosts, await asyncio.gather(*told, return_exceptions=True), strict=True):
        if isinstance(answer, m.HostError):
            log.warning("%s cannot be told where a server is now, will retry: %s", host, answer)
        elif isinstance(answer, BaseException):
            raise answer


# -- what is told on event and on timer


def _told(tx: Tx) -> list[str]:
    """Hosts that are told of every change: those with packets, and those that carry subports, which come and go while
    their guest runs."""
    return sorted({*hosts_in_memory.with_packets(tx), *host_records.heard_of(tx, trunk_ports.hosts(tx))})


class Wirings(Periodic):
    """Tells each host with packets its wiring: when the records change, and on a timer.

    A commit that writes one of `WATCHED` begins a round at once. Other processes send notices of their commits
    (`conductor.conductor`); the timer finds changes whose notice was lost. After a round, and after telling a host, it
    rests for as long as that took. So many changes in short time are told together, and take at most half of the time.
    """

    def __init__(self, *, db: Database, clock: Clock, hosts: Hosts) -> None:
        super().__init__(name="wirings", clock=clock, seconds=SECONDS_BETWEEN)
        self._db = db
        self._hosts = hosts
        self._heard: dict[str, tuple[int, float]] = {}
        """By host: the revision in its last answer, and when that was seen; monotonic."""
        self._undone: dict[str, set[NotDone]] = {}
        """By host: the parts that it could not do, each of which is logged once."""
        self._telling: dict[str, asyncio.Task[None]] = {}
        """By host: the task that tells it."""
        self._again: set[str] = set()
        """Hosts that are being told and for which a new round came: their wiring may have been read before it."""
        self._watched: Watch | None = None

    async def start(self) -> None:
        if self.seconds is not None and self._watched is None:
            self._watched = self._db.watch(WATCHED, partial(_wake, asyncio.get_running_loop(), self._woken))
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await asyncio.gather(*self._telling.values(), return_exceptions=True)

    def kill(self) -> None:
        super().kill()
        if self._watched is not None:
            self._db.unwatch(self._watched)
            self._watched = None
        for telling in self._telling.values():
            telling.cancel()

    async def round(self) -> None:
        """Tell all hosts. A slow one (up to `WIRING_SECONDS`) delays no other host and no further round."""
        began = self._clock.monotonic()
        names = await self._db.look_up(_told)
        for known in (self._heard, self._undone):
            for gone in known.keys() - names:
                del known[gone]
        for name in names:
            if name in self._telling:
                self._again.add(name)
            elif name in self._hosts.names:
                self._telling[name] = telling = asyncio.create_task(self._host(name), name=f"wire-{name}")
                telling.add_done_callback(partial(self._ended, name))
        if self._telling:
            told = asyncio.gather(*self._telling.values(), return_exceptions=True)
            woken = asyncio.ensure_future(self._woken.wait())
            try:
                await asyncio.wait((told, woken), timeout=SECONDS_BETWEEN, return_when=asyncio.FIRST_COMPLETED)
            finally:
                woken.cancel()
        await self._rest(began)

    async def _rest(self, began: float) -> None:
        await self._clock.sleep(min(self._clock.monotonic() - began, SECONDS_BETWEEN))

    def _ended(self, name: str, telling: asyncio.Task[None]) -> None:
        del self._telling[name]
        if name in self._again:  # A round came after its last telling. Nobody tells this host now, so begin another.
            self._woken.set()
        if not telling.cancelled() and (error := telling.exception()) is not None:
            log.error("%s could not be told what its network must be, will retry", name, exc_info=error)

    async def _host(self, name: str) -> None:
        while True:
            began = self._clock.monotonic()
            await self._tell(name)
            if name not in self._again:
                return
            await self._rest(began)

    async def _tell(self, name: str) -> None:
        self._again.discard(name)
        self._note_answer(name)
        try:
            await wire(self._hosts, self._db.read_async, self._clock, name, again=self._is_due(name))
        except m.HostError as error:
            log.debug("%s cannot be wired, will retry: %s", name, error)
            return
        self._note_answer(name)

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
        if self._hosts.told(name) is None:
            return True
        _, at = self._heard[name]
        # What could not be done is tried again sooner.
        return self._clock.monotonic() - at >= (SECONDS_UNTIL_RETRY if self._undone[name] else SECONDS_UNTIL_TOLD_AGAIN)


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    """From any thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(woken.set)
