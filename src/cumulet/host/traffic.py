"""What a host has counted of its guests' packets, and the verb that asks for it."""

from __future__ import annotations

import msgspec

from cumulet.host.messages import OnHost, Question
from cumulet.host.record import Record


class PortTraffic(Record, frozen=True):
    """Of one port since it was plugged in, as its guest sees it: what it has received (`rx`) and sent (`tx`)."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    rx_drops: int
    """Packets for it that its full queue dropped."""


class Metered(Record, frozen=True):
    packets: int
    bytes: int


class Traffic(Record, frozen=True):
    """`dropped`: packets that rules have dropped on the host since it was set up, by cause. `ports`: by their ids;
    those that are not plugged are left out."""

    dropped: dict[str, int]
    ports: dict[str, PortTraffic]
    metered: dict[str, Metered] = msgspec.field(default_factory=dict)
    """What routers on the host have passed since they came to it, by metering label."""


NO_TRAFFIC = Traffic(dropped={}, ports={})


class AskTraffic(Question[Traffic], frozen=True, tag="traffic"):
    """`ports`: those to tell about."""

    ports: tuple[str, ...] = ()

    async def do(self, host: OnHost) -> Traffic:
        return await host.driver.traffic(self.ports)
