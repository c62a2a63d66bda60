"""Planted mistakes in the wiring of hosts (routers, floating IPs), and in their memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.agent.agent import Agent
from cumulet.compute.hosts import Kind
from cumulet.db.engine import Tx
from cumulet.fleet.hosts import Hosts
from cumulet.host.wiring import InForce, Wiring
from cumulet.network import floating_ips, port_forwardings
from cumulet.placement import allocations as placement
from cumulet.testing.simulation.hosts import Machine


def a_watchdog_that_leaves_routers() -> AbstractContextManager[object]:
    """A lease runs out, the guests end, and the routers stay."""
    return mock.patch.object(Machine, "end_routers", return_value=None)


@contextlib.contextmanager
def routers_without_a_lease() -> Iterator[None]:
    """A host that answers may have routers, even if its lease has run out."""

    async def wire(self: Agent, wiring: Wiring) -> InForce:
        return await self.driver.wire(wiring)

    def may_have_routers(self: Kind, *, up: bool) -> bool:
        return up

    with mock.patch.object(Agent, "wire", wire), mock.patch.object(Kind, "may_have_routers", may_have_routers):
        yield


def moving_routers_on_silence_alone() -> AbstractContextManager[object]:
    """A silent host without a watchdog may have no routers, although it may be alive and have them still."""

    def may_have_routers(self: Kind, *, up: bool) -> bool:
        return up and (self.lease_seconds is None or self.lease_held)

    return mock.patch.object(Kind, "may_have_routers", may_have_routers)


def believing_that_what_was_told_is_in_force() -> AbstractContextManager[object]:
    """What a host was told last is taken to be in force, whatever the host reports."""
    return mock.patch.object(Hosts, "told", lambda self, host: self._told.get(host))


def forwarding_and_leading() -> AbstractContextManager[object]:
    """A floating IP with port forwardings may also be associated with a port."""
    return mock.patch.object(floating_ips, "_refuse_forwarding", return_value=None)


def forwarding_a_port_twice() -> AbstractContextManager[object]:
    """A port of a floating IP may be forwarded twice."""
    return mock.patch.object(port_forwardings, "_refuse_collision", return_value=None)


def giving_memory_twice() -> AbstractContextManager[object]:
    """Claims may take twice the memory that a host has."""
    real = placement.set_inventory

    def set_inventory(tx: Tx, *, inventory: dict[str, tuple[int, float]], **named: object) -> None:
        total, ratio = inventory[placement.MEMORY_MB]
        real(tx, inventory=inventory | {placement.MEMORY_MB: (total, 2 * ratio)}, **named)  # type: ignore[arg-type]

    return mock.patch.object(placement, "set_inventory", set_inventory)


PLANTS = (
    a_watchdog_that_leaves_routers,
    routers_without_a_lease,
    moving_routers_on_silence_alone,
    believing_that_what_was_told_is_in_force,
    forwarding_and_leading,
    forwarding_a_port_twice,
    giving_memory_twice,
)
