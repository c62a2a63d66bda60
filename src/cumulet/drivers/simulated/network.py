"""A simulated host's network: there are no packets, so what it is told is in force at once."""

from __future__ import annotations

from collections.abc import Collection

from cumulet.host.traffic import NO_TRAFFIC, Traffic
from cumulet.host.wiring import InForce, Wiring


class SimulatedNetwork:
    """The newest wiring that the host was told since its agent started."""

    def __init__(self) -> None:
        self.wiring: Wiring | None = None

    def apply(self, wiring: Wiring) -> None:
        """Take a wiring; an earlier revision than the one in force changes nothing."""
        if self.wiring is None or wiring.revision >= self.wiring.revision:
            self.wiring = wiring

    def in_force(self, plugged: Collection[str]) -> InForce:
        """`plugged`: the ports of guests that have a process. Without rules a port is not linked. A subport is
        plugged with its parent.
        """
        if self.wiring is None:
            return InForce(revision=0)
        ports = tuple(port.id for port in self.wiring.ports)
        linked = tuple(
            port.id
            for port in self.wiring.ports
            if (port.id if port.carried is None else port.carried.parent) in plugged
        )
        return InForce(revision=self.wiring.revision, ports=ports, linked=linked)


class SimulatedTraffic:
    """Part of `SimulatedDriver`: there are no packets to count."""

    async def traffic(self, port_ids: Collection[str]) -> Traffic:
        return NO_TRAFFIC
