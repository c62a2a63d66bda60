"""The fence: the last command that a host has accepted for each guest, so that it refuses late ones."""

from __future__ import annotations

import errno
import os
import zlib
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
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
SPARE_MARKS = 1024
"""So many marks a host can set while its disk is full."""
_SLOT_BYTES = 128
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


class SpareMarks:
    """Room for some marks that was taken in advance, in one file: a full disk has none for a mark's own file.

    Else nothing could be done there any more, and to remove a guest is what makes room. A slot that counts is never
    written over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.marks: dict[str, Mark] = {}
        self._slots: list[str] = []
        """By slot: the guest whose mark is there, or nothing."""
        self.prepare()

    def prepare(self) -> None:
        """Take the room, and read what is there. Without room there are no slots so far."""
        if self._slots:
            return
        if not self._file.exists():
            _write_or_nothing(self._file, b" " * (SPARE_MARKS * _SLOT_BYTES))
        content = self._file.read_bytes() if self._file.exists() else b""
        for start in range(0, len(content), _SLOT_BYTES):
            server_id, mark = _in_slot(content[start : start + _SLOT_BYTES])
            newer = mark > self.marks.get(server_id, NEVER_SEEN)
            if newer:
                self._slots = [was if was != server_id else "" for was in self._slots]
                self.marks[server_id] = mark
            self._slots.append(server_id if newer else "")

    def put(self, server_id: str, mark: Mark) -> bool:
        """Durable when this returns. False where there is no slot left."""
        if "" not in self._slots:
            return False
        before = self._slots.index(server_id) if server_id in self.marks else None
        slot = self._slots.index("")
        line = f"{server_id} {mark.text} "
        self._write(slot, f"{line}{zlib.crc32(line.encode()):08x}".encode())
        self._slots[slot], self.marks[server_id] = server_id, mark
        if before is not None:
            self._write(before, b"")
            self._slots[before] = ""
        return True

    def clear(self, server_id: str) -> None:
        if self.marks.pop(server_id, None) is not None:
            slot = self._slots.index(server_id)
            self._write(slot, b"")
            self._slots[slot] = ""

    def _write(self, slot: int, content: bytes) -> None:
        file = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(file, content.ljust(_SLOT_BYTES), slot * _SLOT_BYTES)
            os.fsync(file)
        finally:
            os.close(file)


def _write_or_nothing(file: Path, content: bytes) -> OSError | None:
    try:
        write_durably(file, content)
    except OSError as problem:
        file.with_name(f".{file.name}.new").unlink(missing_ok=True)
        return problem
    return None


def _in_slot(content: bytes) -> tuple[str, Mark]:
    """What a crash has left half-written was never accepted."""
    line, _, check = content.decode(errors="replace").rstrip().rpartition(" ")
    if check != f"{zlib.crc32(f'{line} '.encode()):08x}":
        return "", NEVER_SEEN
    server_id, _, mark = line.partition(" ")
    return server_id, Mark.parse(mark)


class FileFence(MemoryFence):
    """One file per guest, fsynced before the command is done, and kept after the guest has gone. While the disk is full
    some have their marks in another file (`SpareMarks`)."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = [path for path in directory.iterdir() if not path.name.endswith(".new")]
        for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
            self._known[path.name] = Mark.parse(path.read_text())
        self._spare = SpareMarks(directory.with_name(f"{directory.name}.spare"))
        for server_id, mark in self._spare.marks.items():
            super().set_mark(server_id, max(mark, self.mark(server_id)))

    def set_mark(self, server_id: str, mark: Mark) -> None:
        problem = self._write(server_id, mark)
        if problem is None:
            self._tidy_spare()
        elif problem.errno not in NO_ROOM or not self._spare.put(server_id, mark):
            raise problem
        super().set_mark(server_id, mark)

    def _write(self, server_id: str, mark: Mark) -> OSError | None:
        problem = _write_or_nothing(self._directory / server_id, mark.text.encode())
        if problem is None:
            self._spare.clear(server_id)
        return problem

    def _tidy_spare(self) -> None:
        """There is room, perhaps again: with each mark that is written, another one goes to a file of its own."""
        self._spare.prepare()
        for server_id, mark in list(self._spare.marks.items())[:1]:
            self._write(server_id, mark)

    def _drop(self, server_id: str) -> None:
        (self._directory / server_id).unlink(missing_ok=True)
        self._spare.clear(server_id)
        super()._drop(server_id)
