"""What simulated hosts do with guests' disks: images of them, and booting from another."""

from __future__ import annotations

from cumulet.drivers.simulated.rescue import SimulatedRescue
from cumulet.drivers.simulated.snapshots import SimulatedSnapshots, Take

__all__ = ["SimulatedDisks", "Take"]


class SimulatedDisks(SimulatedSnapshots, SimulatedRescue):
    """Part of `SimulatedDriver`."""
