"""A host's lease: until when this host counts as heard. After that, its guests may not run here.

Theory of operation. The control plane numbers its questions, and each question says which answer of ours it has heard.
Only that renews the lease, and the lease counts from the moment at which *we* gave that answer, before the control
plane heard it. The control plane counts from when it heard the answer and adds a margin. So the lease ends here before
the control plane takes it for ended, even if messages are lost, late or repeated: a question that comes after a newer
one was answered already, here or by an earlier start of the agent, and that answer may have been heard. The clock is
the kernel's boot time, which goes on while the machine is suspended.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

import msgspec

_REMEMBERED = 64


_FILE_BYTES = 4096
_LOOKS = 100


class Expiry(msgspec.Struct, frozen=True):
    """The content of the lease's file: seconds of one boot's clock."""

    boot_id: str
    at: float
    check: str = ""
    """Of both: who reads while it is written may see a part of each. Empty: of a version that put new files there."""

    @property
    def whole(self) -> bool:
        return self.check in ("", _check(self.boot_id, self.at))


def _check(boot_id: str, at: float) -> str:
    return f"{zlib.crc32(f'{boot_id} {at:.6f}'.encode()):08x}"


def _content(boot_id: str, at: float) -> bytes:
    """JSON in which each field has its place, so that a part of each of two is JSON, too."""
    text = f'{{"boot_id":"{boot_id}","at":{at:24.6f},"check":"{_check(boot_id, at)}"}}'
    return text.encode().ljust(_FILE_BYTES)


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def seconds_left(file: Path) -> float:
    """Seconds left of the lease in `file`: none if there is no lease, or if it is from another boot."""
    for _ in range(_LOOKS):
        try:
            expiry = msgspec.json.decode(file.read_bytes(), type=Expiry)
        except (FileNotFoundError, msgspec.DecodeError):
            return 0.0
        if expiry.whole:
            return expiry.at - now() if expiry.boot_id == boot_id() else 0.0
        time.sleep(0.0)
    return 0.0


class ExpiryFile:
    """Where a host notes the end of its lease: the agent writes it, the watchdog reads it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self) -> float:
        return now()

    def left(self) -> float:
        return seconds_left(self._file)

    def end_at(self, at: float) -> None:
        """Write the end. Not fsynced: it does not count after another boot.

        The file is written over, because a full disk has no room for another: then the lease of all guests would end.
        """
        content = _content(boot_id(), at)
        if self._write_over(content):
            return
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self._file)

    def _write_over(self, content: bytes) -> bool:
        """False where there is no file of this size: there is none, or one of an earlier version."""
        try:
            file = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return os.fstat(file).st_size == len(content) and os.pwrite(file, content, 0) == len(content)
        finally:
            os.close(file)


class Noted(Protocol):
    """`ExpiryFile`, or the simulation's."""

    def now(self) -> float: ...
    def left(self) -> float: ...
    def end_at(self, at: float) -> None: ...


class Lease:
    """The agent's side of the lease."""

    def __init__(self, noted: Noted, *, seconds: float) -> None:
        self._noted = noted
        self._seconds = seconds
        self._answered: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._renewing = threading.Lock()

    @property
    def seconds(self) -> float | None:
        return self._seconds

    @property
    def valid(self) -> bool:
        return self._noted.left() > 0

    @property
    def held(self) -> bool:
        """As `valid`: the watchdog lives as long as this object."""
        return self.valid

    def begin(self) -> None:
        """Begin a first lease now. The host had none before, so nobody counts on its end yet."""
        self._noted.end_at(self._noted.now() + self._seconds)

    async def welcomed(self) -> None:
        return None

    async def renew(self, session: str, number: int, heard: int | None) -> None:
        """`asked` in a thread: it may have to write, and to start a watchdog."""
        await asyncio.to_thread(self.asked, session, number, heard)

    def asked(self, session: str, number: int, heard: int | None) -> None:
        """A question has come and is answered now. `heard`: the newest answer that reached the control plane.

        An agent that was stopped for a while finds several questions at once.
        """
        with self._renewing:
            answered_at = self._answered.get((session, heard)) if heard is not None else None
            now = self._noted.now()
            if answered_at is not None and answered_at + self._seconds - now > self._noted.left():
                self._noted.end_at(answered_at + self._seconds)
            if all(number > newest for of, newest in self._answered if of == session):
                self._answered[session, number] = now
            while len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
