"""What a host remembers so that a late command can undo nothing: per guest, the highest generation it has accepted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, Protocol


class Mark(NamedTuple):
    """The highest generation accepted for a guest; `closed` once it was destroyed here at that generation."""

    generation: int
    closed: bool

    @classmethod
    def parse(cls, text: str) -> Mark:
        generation, _, closed = text.partition(" ")
        return cls(int(generation), bool(closed))

    @property
    def text(self) -> str:
        return f"{self.generation} closed" if self.closed else str(self.generation)


NEVER_SEEN = Mark(0, False)


class Fence(Protocol):
    """Remembers, durably, a mark per guest."""

    def mark(self, server_id: str) -> Mark: ...
    def set_mark(self, server_id: str, mark: Mark) -> None: ...
    def known(self) -> dict[str, int]: ...


class FileFence:
    """A file per guest, fsynced before the command it admits is done, and kept after the guest is gone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known = {
            path.name: Mark.parse(path.read_text()) for path in directory.iterdir() if not path.name.endswith(".new")
        }

    def mark(self, server_id: str) -> Mark:
        return self._known.get(server_id, NEVER_SEEN)

    def known(self) -> dict[str, int]:
        return {server_id: mark.generation for server_id, mark in self._known.items()}

    def set_mark(self, server_id: str, mark: Mark) -> None:
        fresh = self._directory / f"{server_id}.new"
        with open(fresh, "w") as file:
            file.write(mark.text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._directory / server_id)
        folder = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._known[server_id] = mark


class MemoryFence:
    """For simulated hosts: lives as long as the simulated machine's disk."""

    def __init__(self) -> None:
        self._known: dict[str, Mark] = {}

    def mark(self, server_id: str) -> Mark:
        return self._known.get(server_id, NEVER_SEEN)

    def known(self) -> dict[str, int]:
        return {server_id: mark.generation for server_id, mark in self._known.items()}

    def set_mark(self, server_id: str, mark: Mark) -> None:
        self._known[server_id] = mark
