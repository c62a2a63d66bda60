"""The fence of a simulated host: kept in files like its guests, so that both outlive the process, and no more."""

from __future__ import annotations

from pathlib import Path

from cumulet.host.agent import FileFence


class SimulatedFence(FileFence):
    """Without fsync. Should this machine lose power, simulated guests are lost as well: nothing is left to fence."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._folder = directory

    def raise_to(self, server_id: str, generation: int) -> None:
        fresh = self._folder / f"{server_id}.new"
        fresh.write_text(str(generation))
        fresh.replace(self._folder / server_id)
        self._known[server_id] = generation
