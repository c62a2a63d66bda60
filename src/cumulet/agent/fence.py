"""The fence: the last command that a host has accepted for each guest, so that it refuses late ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from cumulet.drivers.qemu.record import write_durably


class Mark(NamedTuple):
    """The highest generation accepted for a guest, and its last step. Commands with a lower one are out of date."""

    generation: int
    step: int

    @classmethod
    def parse(cls, text: str) -> Mark:
        """``GENERATION/STEP``; before steps were counted, ``GENERATION`` or ``GENERATION closed``."""
        generation, _, step = text.partition(" ")[0].partition("/")
        return cls(int(generation), int(step or 0))

    @property
    def text(self) -> str:
        return f"{self.generation}/{self.step}"


NEVER_SEEN = Mark(0, 0)


class Fence(Protocol):
    """Keeps a mark for each guest, durably."""

    def mark(self, server_id: str) -> Mark: ...
    def set_mark(self, server_id: str, mark: Mark) -> None: ...
    def known(self) -> dict[str, Mark]: ...


class FileFence:
    """One file per guest, fsynced before the command is done, and kept after the guest has gone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known = {
            path.name: Mark.parse(path.read_text()) for path in directory.iterdir() if not path.name.endswith(".new")
        }

    def mark(self, server_id: str) -> Mark:
        return self._known.get(server_id, NEVER_SEEN)

    def known(self) -> dict[str, Mark]:
        return dict(self._known)

    def set_mark(self, server_id: str, mark: Mark) -> None:
        write_durably(self._directory / server_id, mark.text.encode())
        self._known[server_id] = mark


class MemoryFence:
    """For simulated hosts: lives as long as the simulated machine's disk."""

    def __init__(self) -> None:
        self._known: dict[str, Mark] = {}

    def mark(self, server_id: str) -> Mark:
        return self._known.get(server_id, NEVER_SEEN)

    def known(self) -> dict[str, Mark]:
        return dict(self._known)

    def set_mark(self, server_id: str, mark: Mark) -> None:
        self._known[server_id] = mark
