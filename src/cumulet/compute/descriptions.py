"""What hosts' networks must be, as the records are now: read for many hosts at once, and for each what it can keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Protocol, TypeVar

from msgspec.structs import replace

from cumulet.compute import hosts as host_records
from cumulet.compute import hosts_in_memory
from cumulet.db.engine import Tx
from cumulet.host.wiring import (
    BANDWIDTH_LIMITS,
    DSCP_MARKS,
    FLOATING_IP_LIMITS,
    GATEWAY_LIMITS,
    METERING,
    PORT_NAMES,
    TRUNKS,
    FloatingIp,
    Port,
    Router,
    Wiring,
)
from cumulet.network import wiring as network
from cumulet.network.wiring import WithoutGroups

T = TypeVar("T")

HOSTS_AT_ONCE = 32
"""How many are read in one transaction at most. The first of many hosts need not wait for the last."""


class Read(Protocol):
    """Runs a function in a transaction that only reads."""

    def __call__(self, fn: Callable[[Tx], T], /) -> Awaitable[T]: ...


def described(tx: Tx, host: str) -> Wiring:
    """The wiring of one host, as `descriptions`."""
    return descriptions(tx, [host])[host]


def descriptions(tx: Tx, hosts: Collection[str]) -> dict[str, Wiring]:
    """The wirings of these hosts as the records are now, without revisions.

    Fields for features that a host does not offer are left out: an agent of the version before refuses a wiring
    with a field that it does not know.
    """
    return network.with_groups(tx, _without_groups(tx, hosts))


def _without_groups(tx: Tx, hosts: Collection[str]) -> dict[str, WithoutGroups]:
    addresses_of, router_hosts = partial(host_records.addresses, tx), partial(hosts_in_memory.for_routers, tx)
    made = network.without_groups(tx, hosts, addresses_of, router_hosts)
    return {
        host: replace(one, wiring=_kept(one.wiring, host_records.kind_of(tx, host).features))
        for host, one in made.items()
    }


def _kept(made: Wiring, kept: Collection[str]) -> Wiring:
    """What a host of these features can keep of it."""
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


class Reading:
    """Reads the wirings of hosts. Those of hosts that are asked for at once are read in one transaction, in which what
    is the same for several is read once."""

    def __init__(self, read: Read, written: Callable[[], object] = lambda: None) -> None:
        """`written`: equal before and after where this process has committed nothing to what wirings are read from,
        except groups; None where that is not known. Then only groups are read again: they change most often."""
        self._read = read
        self._written = written
        self._last: dict[str, tuple[object, WithoutGroups]] = {}
        """By host: when it was read, in the words of `_written`, and what."""
        self.hosts_then: dict[str, object] = {}
        """By host: `hosts_in_memory.as_wired` of the transaction in which its wiring was read last."""
        self._asked: dict[str, asyncio.Future[Wiring]] = {}
        """What no transaction has begun to read."""
        self._under_way: asyncio.Task[None] | None = None

    async def of(self, host: str) -> Wiring:
        """The wiring of a host, read after this was called."""
        if host not in self._asked:
            self._asked[host] = asyncio.get_running_loop().create_future()
        asked = self._asked[host]
        if self._under_way is None:
            # It begins after all that is ready to run now: other hosts ask meanwhile.
            self._under_way = asyncio.create_task(self._read_asked(), name="read-wirings")
        return await asyncio.shield(asked)

    async def _read_asked(self) -> None:
        try:
            while self._asked:
                part = {host: self._asked.pop(host) for host in list(self._asked)[:HOSTS_AT_ONCE]}
                try:
                    found = await self._found(list(part))
                except BaseException as error:
                    for one in part.values():
                        if isinstance(error, asyncio.CancelledError):
                            one.cancel()
                        else:
                            one.set_exception(error)
                    if not isinstance(error, Exception):
                        raise
                else:
                    for host, one in part.items():
                        one.set_result(found[host])
        finally:
            self._under_way = None

    async def _found(self, hosts: Sequence[str]) -> dict[str, Wiring]:
        before = self._written()
        found, known = await self._read(partial(self._descriptions, hosts=hosts, written=before))
        if known and self._written() != before:  # While this was read, or before it began.
            found, _ = await self._read(partial(self._descriptions, hosts=hosts, written=None))
        return found

    def _descriptions(self, tx: Tx, hosts: Sequence[str], written: object) -> tuple[dict[str, Wiring], bool]:
        """As `descriptions`, and whether a part was known already."""
        of_hosts = hosts_in_memory.as_wired(tx)
        self.hosts_then |= dict.fromkeys(hosts, of_hosts)
        now = None if written is None or of_hosts is None else (written, of_hosts)
        if now is None:
            self._last = {}
            return descriptions(tx, hosts), False
        known = {host: self._last[host][1] for host in hosts if host in self._last and self._last[host][0] == now}
        unknown = [host for host in hosts if host not in known]
        read = _without_groups(tx, unknown) if unknown else {}
        self._last = {host: one for host, one in self._last.items() if one[0] == now}
        self._last |= {host: (now, one) for host, one in read.items()}
        return network.with_groups(tx, {**known, **read}), bool(known)

    def kill(self) -> None:
        """Nothing is read any more, and who waits is cancelled."""
        for one in self._asked.values():
            one.cancel()
        self._asked = {}
        if self._under_way is not None:
            self._under_way.cancel()
            self._under_way = None
