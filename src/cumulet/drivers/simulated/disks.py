"""What simulated hosts do with guests' disks: images, booting from another; and what is asked of guests' agents."""

from __future__ import annotations

from cumulet.drivers.simulated.guest_agent import SimulatedGuestAgent
from cumulet.drivers.simulated.rescue import SimulatedRescue
from cumulet.drivers.simulated.snapshots import SimulatedSnapshots, Take

__all__ = ["SimulatedDisks", "Take"]


class SimulatedDisks(SimulatedSnapshots, SimulatedRescue, SimulatedGuestAgent):
    """Part of `SimulatedDriver`."""
