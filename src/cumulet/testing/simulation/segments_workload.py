"""Ranges of segments in a run, and networks with segments of them."""

from __future__ import annotations

from random import Random

from cumulet.testing.simulation.foundation import PROJECTS
from cumulet.testing.simulation.network_requests import Asked, Requests
from cumulet.testing.simulation.segments import OPERATORS

MOST_NETWORKS, MOST_RANGES = 5, 4
LOW, HIGH = 100, 115
"""Where ranges and named segments are."""
_MADE_HERE = "SELECT id FROM networks WHERE project_id = ? AND name = 'segment' ORDER BY id"
_RANGES = "SELECT id FROM network_segment_ranges ORDER BY id"


class SegmentsWorkload:
    """Requests of a project for networks, and of an administrator for ranges and for a network with some segment."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def first(self, project: str) -> None:
        """Give each project a range of two segments, and the first of them a network."""
        low = LOW + 4 * PROJECTS.index(project)
        await self._make_range({"shared": False, "project_id": project}, low, low + 1)
        await self._requests.asked(project, "POST", "networks", {"network": {"name": "segment"}})

    def request(self, random: Random, project: str) -> Asked:
        chance = random.random()
        if chance < 0.35:
            return self._range(random)
        if chance < 0.5:
            number = random.randrange(LOW, HIGH + 1)
            body = {"name": "segment", "provider:network_type": "vxlan", "provider:segmentation_id": number}
            made = self._requests.asked("admin", "POST", "networks", {"network": body})
            return f"admin makes a network with the segment {number}", made
        owner, caller = random.choice(((project, project), (project, project), (OPERATORS, "admin")))
        present = self._requests.ids(_MADE_HERE, owner)
        if len(present) >= MOST_NETWORKS or (present and random.random() < 0.4):
            gone = self._requests.asked(caller, "DELETE", f"networks/{random.choice(present)}")
            return f"{caller} deletes a network", gone
        return f"{caller} makes a network", self._requests.asked(
            caller, "POST", "networks", {"network": {"name": "segment"}}
        )

    def _range(self, random: Random) -> Asked:
        present, low = self._requests.ids(_RANGES), random.randrange(LOW, HIGH)
        high = min(low + random.randrange(3), HIGH)
        if len(present) < MOST_RANGES and random.random() < 0.5:
            project = random.choice((*PROJECTS, None))
            owner: dict[str, object] = {"shared": True} if project is None else {"shared": False, "project_id": project}
            made = self._make_range(owner, low, high)
            return f"admin makes a range of segments, {low} to {high}, for {project or 'all'}", made
        if not present:
            return self.request(random, random.choice(PROJECTS))
        path = f"network_segment_ranges/{random.choice(present)}"
        if random.random() < 0.4:
            return "admin deletes a range of segments", self._requests.asked("admin", "DELETE", path)
        change = {"network_segment_range": {"minimum": low, "maximum": high}}
        return f"admin moves a range to {low} to {high}", self._requests.asked("admin", "PUT", path, change)

    async def _make_range(self, owner: dict[str, object], low: int, high: int) -> None:
        body = {"name": "r", "network_type": "vxlan", "minimum": low, "maximum": high, **owner}
        await self._requests.asked("admin", "POST", "network_segment_ranges", {"network_segment_range": body})
