"""What an agent keeps on disk about each guest: enough to find it again, never the truth about its state."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from cumulet.host.driver import DriverError, Guest, MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.record import Record
from cumulet.host.telling import Posted, Told

_SERVER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Role(StrEnum):
    OWN = "own"
    INCOMING = "incoming"
    """A destination of a move that nobody has committed yet."""


class Intent(StrEnum):
    """What the last verb wanted: tells a guest that was stopped from one that has crashed."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    SUSPENDED = "suspended"


class ProcessId(Record, frozen=True):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    start_time: int
    boot_id: str


class Authority(Record, frozen=True):
    """One end's own for one move (`move_authority`), as PEM: the key is the agent's alone."""

    move: str
    certificate: str
    key: str

    def __repr__(self) -> str:
        return f"Authority(move={self.move!r})"


class Copy(Record, frozen=True):
    """An outgoing copy that has been begun."""

    endpoint: Endpoint
    authority: Authority | None
    """None once it has ended."""
    parameters: MigrationParameters
    memory: bool = False
    """False while disks are copied; set before QEMU is told to send memory."""
    to_post_copy: bool = False
    """The guest shall stand still before all of its memory has gone, and wait there for `begin_post_copy`."""
    forced: bool = False
    """The guest shall stand still, for however long, until the rest of its memory has gone."""
    outcome: MigrationPhase | None = None
    """How it ended, as observed."""
    error: str | None = None


class Incoming(Record, frozen=True):
    """A prepared destination; in post-copy kept until all of the guest's memory has come."""

    source: Peer
    parameters: MigrationParameters
    authority: Authority
    endpoint: Endpoint | None = None


class GuestRecord(Record, frozen=True):
    """The content of `record.json`."""

    guest: Guest
    uid: int | None
    role: Role
    intent: Intent
    user_paused: bool = False
    rescued: bool = False
    """It boots from another disk than its own."""
    rescue_bus: str = ""
    rescue_device: str = ""
    """Of that disk, as in `devices.Devices`."""
    rescue_bytes: int = 0
    """Its size, from before it is made until it is removed."""
    copy: Copy | None = None
    incoming: Incoming | None = None

    @property
    def standing_by(self) -> bool:
        """A stopped guest with a process, for its disk to be copied: paused, though nobody wants it to run."""
        return self.role is Role.OWN and self.intent is Intent.STOPPED and self.user_paused


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(GuestRecord)
_process_decoder = msgspec.json.Decoder(ProcessId)
_told_decoder = msgspec.json.Decoder(Told)
_posted_decoder = msgspec.json.Decoder(Posted)
T = TypeVar("T")


def _read(path: Path, decoder: msgspec.json.Decoder[T]) -> T | None:
    try:
        return decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None


class GuestFolder:
    """`<state>/guests/<server id>/`: the agent's part, with `vm/` in it as the only part that QEMU sees."""

    def __init__(self, guests: Path, server_id: str) -> None:
        if not _SERVER_ID.fullmatch(server_id):
            raise DriverError("SERVER_ID: not a lower-case UUID")
        self.server_id = server_id
        self.path = guests / server_id
        self.vm = self.path / "vm"
        self.root = self.path / "root"
        """Where the jail puts its root: an empty folder."""
        self.monitors = (self.path / "monitor.sock", self.path / "monitor2.sock")
        self.agent = self.path / "agent.sock"
        """Leads to the guest's own agent, where it has one."""
        self.frozen = self.path / "frozen"
        """Exists from before its file systems are frozen for an image until it is certain that they are thawed."""
        self.console = self.path / "console.log"
        self.memory = self.path / "memory.state"
        """Outside `vm`: QEMU gets it as an open file and could not point the agent elsewhere."""
        self.process = self.path / "process.json"
        """Written by the process itself just before it becomes QEMU."""
        self.told = self.path / "told.json"
        self.posted = self.path / "posted.json"
        self._record = self.path / "record.json"

    def make(self) -> None:
        for folder in (self.path, self.vm, self.root):
            folder.mkdir(mode=0o700, exist_ok=True)

    def read(self) -> GuestRecord | None:
        """None where there is no such guest, also where a crash left a folder without a record."""
        return _read(self._record, _decoder)

    def read_process(self) -> ProcessId | None:
        """The newest process started for this guest; whether it still lives is another question."""
        return _read(self.process, _process_decoder)

    def read_told(self) -> Told | None:
        """What its metadata service was told since its description was frozen."""
        return _read(self.told, _told_decoder)

    def read_posted(self) -> Posted | None:
        """A password that the guest has posted and that is not on record yet."""
        return _read(self.posted, _posted_decoder)

    def write_told(self, told: Told) -> None:
        """Durable when this returns. FileNotFoundError where the guest is removed just now."""
        write_durably(self.told, _encoder.encode(told))

    def write_posted(self, posted: Posted) -> None:
        """As `write_told`."""
        write_durably(self.posted, _encoder.encode(posted))

    def write(self, record: GuestRecord) -> None:
        """Durable when this returns: old or new after a crash, never half."""
        write_durably(self._record, _encoder.encode(record))

    def remove(self) -> None:
        """The record goes last, so that an interrupted removal is seen and repeated. What is told of it may be written
        meanwhile: `write_told` takes no lock."""
        while self.path.exists():
            for entry in self.path.iterdir():
                if entry != self._record:
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # A record was being written just now.
                self.path.rmdir()
        if self.path.parent.exists():
            _sync_folder(self.path.parent)


def folders(guests: Path) -> Iterator[GuestFolder]:
    """All guests' folders, also those without a record."""
    for path in sorted(guests.iterdir()) if guests.exists() else ():
        if _SERVER_ID.fullmatch(path.name):
            yield GuestFolder(guests, path.name)


def write_durably(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
