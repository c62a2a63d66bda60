"""Invariants of routers and floating IPs: the hosts that serve them at every moment, and the records at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from cumulet.compute.descriptions import described
from cumulet.compute.store import hosts
from cumulet.db.engine import Row, Tx
from cumulet.host.wiring import Router, Wiring
from cumulet.network.router_hosts import host_of
from cumulet.network.store import ports, routers

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud

HANDED_OVER_SECONDS = 20.0
"""A router that moves between two hosts that answer has left the first one after so long."""
LEFT_ALONE_SECONDS = 10.0
"""A router whose place is a silent host without a watchdog is on no other host for so long."""
_HOSTS = sa.select(hosts.c.name, hosts.c.up, hosts.c.forced_down, hosts.c.disabled, hosts.c.facts)
_IN_SERVICE = sa.select(hosts.c.name).where(hosts.c.up, ~hosts.c.forced_down, ~hosts.c.disabled)
_OUTWARD = (
    sa.select(routers.c.id)
    .join(ports, ports.c.id == routers.c.gateway_port_id)
    .where(routers.c.admin_state_up, ports.c.admin_state_up)
    .order_by(routers.c.id)
)

_TAKEN_TWICE = """
SELECT floating_ip_address FROM floating_ips GROUP BY floating_network_id, floating_ip_address HAVING count(*) > 1
"""
_LEAD = """
SELECT f.floating_ip_address, f.fixed_ip_address, f.router_id,
  (SELECT count(*) FROM port_addresses a WHERE a.port_id = f.port_id AND a.address = f.fixed_ip_address),
  (SELECT count(*) FROM port_forwardings p WHERE p.floating_ip_id = f.id)
FROM floating_ips f WHERE f.port_id IS NOT NULL
"""
_NO_WAY = """
SELECT f.floating_ip_address, f.router_id FROM floating_ips f
WHERE f.router_id IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM routers r JOIN ports g ON g.id = r.gateway_port_id
  WHERE r.id = f.router_id AND g.network_id = f.floating_network_id)
"""
_SUBPORTS = """
SELECT s.port_id, p.server_id, u.id, p.status, q.server_id FROM trunk_subports s JOIN ports p ON p.id = s.port_id
JOIN trunks t ON t.id = s.trunk_id JOIN ports q ON q.id = t.port_id LEFT JOIN trunks u ON u.port_id = s.port_id
"""
_FORWARD = """
SELECT f.floating_ip_address, p.internal_ip_address, p.protocol, p.external_first, p.external_last, f.router_id,
  (SELECT count(*) FROM port_addresses a WHERE a.port_id = p.internal_port_id AND a.address = p.internal_ip_address)
FROM port_forwardings p JOIN floating_ips f ON f.id = p.floating_ip_id
ORDER BY f.id, p.protocol, p.external_first
"""


class Served:
    """Which host serves which router: checked whenever a host's network, or whether it answers, has changed."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud
        self._twice_since: dict[tuple[str, bool], float] = {}
        """By router, and whether its place is silent: since when two hosts serve it."""

    def broken(self) -> Iterator[tuple[str, str]]:
        """The kind and the story of each invariant that does not hold."""
        cloud = self._cloud
        serving = {name: machine.routers for name, machine in cloud.machines.items() if machine.routers}
        known = cloud.db.read(lambda tx: tx.all(_HOSTS, {})) if serving else ()
        silent = {row.name for row in known if not row.up}
        unwatched = {name for name, machine in cloud.machines.items() if machine.watchdog is None}
        able = _able(known, unwatched)
        places: dict[str, list[str]] = {}
        for name, served in serving.items():
            if name in silent - unwatched:
                yield "router twice", f"{name} counts as lost, and serves {len(served)} router(s)"
            for router in served:
                # What has its place elsewhere is kept by a silent host without a lease until it can be told.
                if name not in silent or host_of(router.id, able) == name:
                    places.setdefault(router.id, []).append(name)
            yield from _answered_twice(name, served)
        for name, machine in cloud.machines.items():
            yield from _astray(name, machine.driver.network.wiring)
        now = cloud.loop.now
        twice = {(router_id, not silent.isdisjoint(on)): on for router_id, on in places.items() if len(on) > 1}
        self._twice_since = {one: self._twice_since.get(one, now) for one in twice}
        for (router_id, alone), since in self._twice_since.items():
            if now - since > (LEFT_ALONE_SECONDS if alone else HANDED_OVER_SECONDS):
                yield "router twice", f"router {router_id[:8]} is served by {' and '.join(twice[router_id, alone])}"


def _able(known: Sequence[Row], unwatched: set[str]) -> tuple[str, ...]:
    """The hosts that may have routers: in service, and silent only if their routers do not end with a lease."""
    in_service = [row for row in known if not (row.forced_down or row.disabled)]
    return tuple(row.name for row in in_service if row.name in unwatched or (row.up and row.facts.get("lease_held")))


def _answered_twice(host: str, served: tuple[Router, ...]) -> Iterator[tuple[str, str]]:
    """Outside addresses that lead to two ports."""
    leads: Counter[str] = Counter()
    for router in served:
        leads.update(one.outside for one in router.floating_ips)
        leads.update({one.outside for one in router.forwardings})
    for address, number in leads.items():
        if number > 1:
            yield "floating IP twice", f"{address} leads to {number} on {host}"


def floating_ips(driver: object) -> Iterator[tuple[str, str]]:
    """Floating IPs whose records are wrong, read from the tables. `driver`: SQLite's own connection."""
    execute = driver.execute  # type: ignore[attr-defined]
    for (address,) in execute(_TAKEN_TWICE):
        yield "floating IP twice", f"{address} was given to two"
    for address, inside, router_id, held, forwards in execute(_LEAD):
        if router_id is None or not held:
            yield "floating IP astray", f"{address} leads to {inside}, which its port does not have, or by no router"
        if forwards:
            yield "floating IP twice", f"{address} leads to {inside}, and forwards ports"
    for address, router_id in execute(_NO_WAY):
        yield "floating IP astray", f"{address} is on router {router_id[:8]}, which leads to no outside network of it"
    before: tuple[object, ...] = ()
    for address, inside, protocol, first, last, router_id, held in execute(_FORWARD):
        if router_id is None or not held:
            yield "floating IP astray", f"{address} forwards to {inside}, which its port does not have, or by no router"
        if before[:2] == (address, protocol) and first <= before[2]:
            yield "floating IP twice", f"{protocol} port {first} of {address} is forwarded twice"
        before = (address, protocol, last)


def subports(driver: object) -> Iterator[tuple[str, str]]:
    """Subports whose records are wrong, read from the tables. `driver`: SQLite's own connection."""
    for port_id, server_id, of_trunk, status, carrier in driver.execute(_SUBPORTS):  # type: ignore[attr-defined]
        if server_id is not None or of_trunk is not None:
            yield "subport elsewhere", f"subport {port_id[:8]} is also plugged into a server, or a trunk's parent"
        if status == "ACTIVE" and carrier is None:
            yield "subport astray", f"subport {port_id[:8]} is ACTIVE, and its parent is in no server"


def _astray(host: str, told: Wiring | None) -> Iterator[tuple[str, str]]:
    """Subports that a host wires without their parents."""
    here = {port.id: port for port in told.ports} if told is not None else {}
    for port in here.values():
        if port.carried is None:
            continue
        parent = here.get(port.carried.parent)
        if parent is None or parent.carried is not None or parent.active != port.active:
            yield "subport astray", f"{host} wires subport {port.id[:8]} without its parent, or otherwise"


def not_as_recorded(tx: Tx, cloud: SimulatedCloud) -> Iterator[str]:
    """At rest, each host has its recorded wiring in force, and each router with a gateway is on one host."""
    if not cloud.routed:
        return
    for name, machine in cloud.machines.items():
        told = machine.driver.network.wiring
        wanted = described(tx, name)
        if told is None or msgspec.structs.replace(told, revision=0) != wanted:
            yield f"the network of {name} is not what the records say"
        elif machine.routers != told.routers:
            yield f"{name} was told of {len(told.routers)} router(s), and serves {len(machine.routers)}"
    if not tx.all(_IN_SERVICE, {}):
        return
    places = Counter(router.id for machine in cloud.machines.values() for router in machine.routers)
    for row in tx.all(_OUTWARD, {}):
        if places[row.id] != 1:
            yield f"router {row.id[:8]} is on {places[row.id]} hosts"
