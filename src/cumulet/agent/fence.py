"""The fence: the last command that a host has accepted for each guest, so that it refuses late ones."""

from __future__ import annotations

from collections.abc import Collection
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
MOST_MARKS = 10_000
"""So many marks a host keeps; of more, the oldest half goes, but for those of guests that it has."""


class Fence(Protocol):
    """Keeps a mark for each guest, durably."""

    def mark(self, server_id: str) -> Mark: ...
    def set_mark(self, server_id: str, mark: Mark) -> None: ...
    def forget(self, present: Collection[str]) -> None: ...


class MemoryFence:
    """For simulated hosts: lives as long as the simulated machine's disk."""

    def __init__(self) -> None:
        self._known: dict[str, Mark] = {}
        """In the order in which they were set."""

    def mark(self, server_id: str) -> Mark:
        return self._known.get(server_id, NEVER_SEEN)

    def set_mark(self, server_id: str, mark: Mark) -> None:
        self._known.pop(server_id, None)
        self._known[server_id] = mark

    def forget(self, present: Collection[str]) -> None:
        """Of more than `MOST_MARKS`, let the oldest go. `present`: ids of the guests that the host has: these stay.

        A command that comes later than all that is done for thousands of other guests is not refused any more. If it
        makes a guest, that is found by the control plane and removed.
        """
        if len(self._known) <= MOST_MARKS:
            return
        absent = [server_id for server_id in self._known if server_id not in present]
        for server_id in absent[: len(self._known) - MOST_MARKS // 2]:
            self._drop(server_id)

    def _drop(self, server_id: str) -> None:
        del self._known[server_id]


class FileFence(MemoryFence):
    """One file per guest, fsynced before the command is done, and kept after the guest has gone."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = [path for path in directory.iterdir() if not path.name.endswith(".new")]
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            self._known[path.name] = Mark.parse(path.read_text())

    def set_mark(self, server_id: str, mark: Mark) -> None:
        write_durably(self._directory / server_id, mark.text.encode())
        super().set_mark(server_id, mark)

    def _drop(self, server_id: str) -> None:
        (self._directory / server_id).unlink()
        super()._drop(server_id)
