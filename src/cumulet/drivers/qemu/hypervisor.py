"""One guest's QEMU process, spoken to through its monitor: connection, events, and what it says about itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cumulet.confined.tools import Words
from cumulet.drivers.qemu import process
from cumulet.drivers.qemu.command_line import CONSOLE_CHARDEV
from cumulet.drivers.qemu.commands import ANSWER_SECONDS, Commands
from cumulet.drivers.qemu.qmp import Arguments, Json, Qmp, QmpClosed, QmpError, QmpTimeout
from cumulet.drivers.qemu.record import ProcessId
from cumulet.host.driver import DriverError, MigrationPhase, MigrationProgress
from cumulet.host.errors import HANGS

_CONSOLE_KEPT_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class Hypervisor(Commands):
    """A QEMU process and our connection to it, made when needed and made again when lost."""

    process: ProcessId
    monitor: Path
    words: Words | None = None
    """What it said on standard error; None for one that was adopted."""
    migration: str = "none"
    """Status in the newest MIGRATION event; "none" before the first."""
    jobs: dict[str, str] = field(default_factory=dict)
    """Status of each job in its newest event, "failed" for one that ended with an error."""
    downtime_limit_ms: int | None = None
    """Of an outgoing copy, as it was set last; None while that is not known."""
    ready: bool = False
    """An outgoing copy waits for `begin_post_copy`."""
    progress: MigrationProgress = field(default_factory=lambda: MigrationProgress(phase=MigrationPhase.NONE))
    """The newest numbers of an outgoing copy, for moments in which QEMU must not be asked."""
    on_socket: bool = False
    """Its console is a socket: what it prints comes to the log by `consoles`."""
    let_go_of: set[str] = field(default_factory=set)
    """Devices that the guest has let go of since its NICs were last compared with its record."""
    unsure: bool = True
    """It may have let go of others: nobody heard it, or they were not put right."""
    on_let_go: Callable[[], None] | None = None
    """Called when it has let go of a device."""
    _qmp: Qmp | None = None
    _connecting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alive(self) -> bool:
        return process.alive(self.process)

    @property
    def behind(self) -> bool:
        """Whether it still owes an answer that its caller no longer waits for: it hangs, or is slow."""
        return self._qmp is not None and self._qmp.behind

    async def ask(
        self,
        command: str,
        arguments: Arguments | None = None,
        *,
        timeout_s: float = ANSWER_SECONDS,
        pass_fd: int | None = None,
    ) -> Json:
        try:
            qmp = await self._connection()
            return await qmp.execute(command, arguments, timeout_s=timeout_s, pass_fd=pass_fd)
        except QmpError as refused:
            raise DriverError(f"QEMU_REFUSED: {refused}") from refused
        except QmpTimeout as late:
            raise DriverError(f"{HANGS}: {late}") from late
        except QmpClosed as gone:
            raise DriverError(f"QEMU_GONE: {gone}{self.last_words()}") from gone

    async def ask_out_of_band(self, command: str, arguments: Arguments) -> None:
        try:
            qmp = await self._connection()
            await qmp.execute(command, arguments, oob=qmp.oob, timeout_s=2.0)
        except (QmpError, QmpTimeout, QmpClosed) as problem:
            raise DriverError(f"OUT_OF_BAND: {command}: {problem}") from problem

    async def learn_migration(self) -> None:
        """Of a process that was found: how its migration is. What an event tells meanwhile is newer than the answer."""
        answer = await self.migration_status()
        if self.migration == "none":
            self.migration = answer.status

    def change(self) -> asyncio.Event:
        """Take this before looking, wait on it after: set at the next event, or when the connection ends."""
        return self._changed

    async def wait_for_change(self, change: asyncio.Event, timeout_s: float) -> None:
        # Not `asyncio.wait_for`: until Python 3.12 it forgets a cancellation that comes together with the change.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await change.wait()

    async def greet(self, *, timeout_s: float) -> None:
        """Wait until a QEMU that was just started answers."""
        try:
            await self._connection(timeout_s)
        except QmpTimeout as late:
            raise DriverError(f"{HANGS}: {late}{self.last_words()}") from late
        except (QmpClosed, QmpError) as gone:
            raise DriverError(f"QEMU_GONE: {gone}{self.last_words()}") from gone

    async def quit(self, *, grace_seconds: float = 5.0) -> None:
        """End the process in order, or else kill it. Returns when it has ended."""
        with contextlib.suppress(DriverError):
            await self.end(timeout_s=grace_seconds)
        if not await process.wait_for_end(self.process, grace_seconds) and not await process.kill(self.process):
            raise DriverError(f"UNKILLABLE: process {self.process.pid} does not end")
        await self.let_go()

    async def kill(self) -> None:
        """SIGKILL: also ends a process that is stopped or hangs."""
        if not await process.kill(self.process):
            raise DriverError(f"UNKILLABLE: process {self.process.pid} does not end")
        await self.let_go()

    async def let_go(self) -> None:
        """Close the connection; the guest does not notice."""
        if self._qmp is not None:
            await self._qmp.close()
            self._qmp = None

    async def drain_console(self, log: Path) -> None:
        """Move what the console's ring holds to the agent's log, which never grows beyond twice the ring."""
        if self.on_socket:
            return
        new = await self.ringbuf_read(CONSOLE_CHARDEV, _CONSOLE_KEPT_BYTES)
        if new:
            append_bounded(log, new)

    async def _connection(self, timeout_s: float = ANSWER_SECONDS) -> Qmp:
        async with self._connecting:
            if self._qmp is None or self._qmp.closed.is_set():
                self.unsure = True
                self._qmp = await Qmp.connect(self.monitor, on_event=self._note, timeout_s=timeout_s)
            return self._qmp

    def _note(self, name: str, data: dict[str, Json]) -> None:
        if name == "MIGRATION":
            self.migration = str(data.get("status"))
        elif name == "JOB_STATUS_CHANGE":
            job = str(data.get("id"))
            if self.jobs.get(job) != "failed":
                self.jobs[job] = str(data.get("status"))
        elif name in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED") and "error" in data:
            self.jobs[str(data.get("device"))] = "failed"
        elif name == "DEVICE_DELETED" and "device" in data:  # Also told of what is inside of one, which has no name.
            self.let_go_of.add(str(data["device"]))
            if self.on_let_go is not None:
                self.on_let_go()
        self.announce()

    def announce(self) -> None:
        """Wake whoever waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def last_words(self) -> str:
        """What it said on standard error, in brackets, to stand behind a message; empty where that is nothing."""
        words = self.words.read()[-500:] if self.words is not None else ""
        return f" ({words})" if words else ""


def append_bounded(log: Path, new: bytes) -> None:
    with open(log, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(new)
        size = file.tell()
    if size > 2 * _CONSOLE_KEPT_BYTES:
        with open(log, "rb") as file:
            file.seek(size - _CONSOLE_KEPT_BYTES)
            kept = file.read()
        rest = log.with_name(f".{log.name}.new")
        rest.write_bytes(kept)
        os.replace(rest, log)


def tail(log: Path, max_bytes: int) -> bytes:
    with contextlib.suppress(FileNotFoundError), open(log, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - max_bytes))
        return file.read()
    return b""


def monitor_socket(path: Path) -> socket.socket:
    """A listening socket for QEMU to inherit: made by the agent, in a folder that QEMU cannot reach."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    sock.listen(2)
    return sock
