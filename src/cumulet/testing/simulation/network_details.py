"""What else Network keeps for its projects: QoS policies, metering, names of ports, ranges of segments."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from cumulet.testing.simulation import metering_workload, names_workload, qos_workload, segments
from cumulet.testing.simulation.foundation import PROJECTS
from cumulet.testing.simulation.metering_workload import MeteringWorkload
from cumulet.testing.simulation.names_workload import NamesWorkload
from cumulet.testing.simulation.network_requests import Asked, Requests
from cumulet.testing.simulation.qos_workload import QosWorkload
from cumulet.testing.simulation.segments_workload import SegmentsWorkload

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud
    from cumulet.testing.simulation.network_workload import Ask


class NetworkDetails:
    """Requests of both projects."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        requests = Requests(cloud, ask)
        self._parts = (
            QosWorkload(requests),
            MeteringWorkload(requests),
            NamesWorkload(requests),
            SegmentsWorkload(requests),
        )

    async def first(self) -> None:
        """Make some of each for both projects, before anything goes wrong."""
        for project in PROJECTS:
            for part in self._parts:
                await part.first(project)

    def request(self, random: Random) -> Asked:
        """The story of a request, and the request."""
        return random.choice(self._parts).request(random, random.choice(PROJECTS))


def not_as_recorded(cloud: SimulatedCloud) -> Iterator[str]:
    """At rest: what each host was told of them is what the tables say, read by other statements than the product's."""
    if not cloud.detailed:
        return
    driver = cloud.db.driver
    wirings = [machine.driver.network.wiring for machine in cloud.machines.values()]
    told = [wiring for wiring in wirings if wiring is not None]
    yield from qos_workload.not_as_recorded(driver, told)
    yield from metering_workload.not_as_recorded(driver, told)
    yield from names_workload.not_as_recorded(driver, told)
    yield from segments.overlapping(driver)
