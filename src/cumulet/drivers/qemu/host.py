"""What all verbs of the QEMU driver share: this host's facts and folders, its guests' processes, one lock per guest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import msgspec

from cumulet.drivers.qemu import chosen_devices, guest_files, process
from cumulet.drivers.qemu.command_line import Machine, arguments
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.hypervisor import Hypervisor, monitor_socket
from cumulet.drivers.qemu.record import Authority, GuestFolder, GuestRecord, Intent, Role
from cumulet.drivers.qemu.room import disk_bytes, file_bytes
from cumulet.drivers.qemu.sandbox import Bounds, Sandbox, Started
from cumulet.drivers.qemu.tls import TransportSecurity
from cumulet.host.devices import Devices, lacking
from cumulet.host.disks import SnapshotPhase, SnapshotProgress
from cumulet.host.documents import documents
from cumulet.host.driver import DriverError, Guest, GuestState, MigrationPhase, Nic
from cumulet.host.images import ImageSink
from cumulet.host.limits import HostLimits

if TYPE_CHECKING:
    from cumulet.drivers.linux_network.network import LinuxNetwork

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
PASSING = (DriverError, OSError)
"""What passes, perhaps, and ends no work that nobody would begin again: a process that hangs, a disk that is full, a
machine that has no descriptor left. A TimeoutError is one of them."""
AGAIN_SECONDS = 5.0
"""How soon such work begins anew."""
_OVERHEAD_BYTES = 512 << 20
"""What QEMU needs beside the guest's memory: translated code, buffers of devices and migration, page cache."""

OVER = ("shutdown", "internal-error", "guest-panicked")
"""Run states of a process that will never run its guest again: it has powered itself off, or its machine has failed."""
NEVER_RUN = "prelaunch"
"""The run state of a process before its guest's first instruction. It stays so if its agent dies while it makes it."""
_THROTTLE = "disks"
_BEGUN = SnapshotProgress(phase=SnapshotPhase.COPYING)


def _bounds(record: GuestRecord) -> Bounds:
    guest = record.guest
    screen_bytes = chosen_devices.screen_bytes(guest.devices) if guest.screen else 0
    memory_bytes = (guest.memory_mib << 20) + _OVERHEAD_BYTES + screen_bytes
    # The largest file is a disk, that of a rescue too, or the memory of a suspended guest.
    further = (disk.size_mib << 20 for disk in guest.disks)
    largest = max(file_bytes(max(disk_bytes(guest), record.rescue_bytes, *further)), memory_bytes)
    return Bounds(memory_bytes=memory_bytes, cpus=guest.vcpus, file_bytes=largest)


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """A snapshot that is under way, or has ended. The host keeps it until the next one, or until `end`."""

    image_id: str
    quiesce: bool = False
    progress: SnapshotProgress = _BEGUN
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def become(self, phase: SnapshotPhase, *, error: str | None = None, bytes_done: int = 0) -> None:
        news = phase is not self.progress.phase
        self.progress = SnapshotProgress(phase=phase, error=error, bytes_done=bytes_done)
        if news:
            changed, self.changed = self.changed, asyncio.Event()
            changed.set()


@dataclass(slots=True, kw_only=True)
class QemuHost:
    """One host. Everything else in this package is functions over it."""

    name: str
    address: str
    state: Path
    facts: QemuFacts
    sandbox: Sandbox
    disks: Disks
    tls: TransportSecurity
    network: LinuxNetwork | None
    """None where guests cannot be wired."""
    listen_seconds: float
    """How long a prepared destination waits for its source."""
    limits: HostLimits
    sharing: int = 1
    """How many hosts share this machine."""
    sink: ImageSink | None = None
    """Takes images of guests' disks; None where nobody does."""
    asked: set[str] = field(default_factory=set)
    """Ids of the servers whose guest agent has an open question of a user."""
    offered: dict[str, Authority] = field(default_factory=dict)
    """By server id: this host's authority for a move that is prepared and whose copy has not begun."""
    hypervisors: dict[str, Hypervisor] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    """By server id: the one under way, or the last."""
    on_let_go: Callable[[str], None] | None = None
    """Called with the id of a server whose guest has let go of a device."""
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """By server id. An entry lasts while somebody holds or awaits it."""
    _tasks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    @property
    def guests(self) -> Path:
        return self.state / "guests"

    def folder(self, server_id: str) -> GuestFolder:
        return GuestFolder(self.guests, server_id)

    def lock(self, server_id: str) -> asyncio.Lock:
        """Held by verbs that change something; observing needs none."""
        return self._locks.setdefault(server_id, asyncio.Lock())

    def record(self, server_id: str) -> GuestRecord:
        record = self.folder(server_id).read()
        if record is None:
            raise DriverError("ABSENT: this host has no such guest")
        return record

    def resting(self, server_id: str) -> GuestRecord:
        """The record of a guest that is in no move; DriverError while it is. Hold its lock.

        A side of a move whose process has ended moves no more, even where nobody noted how the copy ended. Of a
        destination this is asked only after the commit, which its host may have missed: the guest is this host's then.
        """
        record = self.record(server_id)
        if self.hypervisor(server_id) is not None:
            refuse_while_moving(record)
        elif record.intent is Intent.CREATING:
            raise DriverError("HALF_MADE: its host was interrupted while it made the guest's disk")
        elif record.role is Role.INCOMING or record.copy is not None:
            record = msgspec.structs.replace(record, role=Role.OWN, incoming=None, copy=None)
            self.folder(server_id).write(record)
        return record

    def hypervisor(self, server_id: str) -> Hypervisor | None:
        """The guest's living process. After a restart of the agent it is found by the note that it wrote itself."""
        known = self.hypervisors.get(server_id)
        if known is not None and known.alive:
            return known
        folder = self.folder(server_id)
        noted = folder.read_process()
        if noted is None or not process.alive(noted):
            return None
        return self._know(server_id, Hypervisor(process=noted, monitor=folder.monitors[0]))

    def _know(self, server_id: str, hypervisor: Hypervisor) -> Hypervisor:
        self.hypervisors[server_id] = hypervisor
        if self.on_let_go is not None:
            hypervisor.on_let_go = partial(self.on_let_go, server_id)
        return hypervisor

    def running_hypervisor(self, server_id: str) -> Hypervisor:
        hypervisor = self.hypervisor(server_id)
        if hypervisor is None:
            raise DriverError("NOT_RUNNING: the guest has no process")
        return hypervisor

    async def living_hypervisor(self, server_id: str) -> Hypervisor:
        """The same of a guest that is not over. Not during a move: a process may answer late then."""
        hypervisor = self.running_hypervisor(server_id)
        run_state = await hypervisor.run_state()
        if run_state in OVER:
            raise DriverError(f"NOT_RUNNING: the guest is over: {run_state}")
        return hypervisor

    async def launch(self, folder: GuestFolder, record: GuestRecord, *, incoming: bool) -> Hypervisor:
        """Start the guest's QEMU, stopped. Returns once its monitor answers; raises with its last words if it ends."""
        guest = record.guest
        if guest.machine_type not in self.facts.machine_types:
            raise DriverError(f"MACHINE_TYPE: this host's QEMU has no {guest.machine_type}")
        if guest.cpu_model not in self.facts.cpu_models:
            raise DriverError(f"CPU_MODEL: this host has not all features of {guest.cpu_model}")
        self.require_devices(guest.devices)
        with ExitStack() as opened:
            paths = (*folder.monitors, *([folder.agent] if guest.agent else []))
            sockets = [opened.enter_context(monitor_socket(path)) for path in paths]
            taps = [await self._tap(nic, opened) for nic in guest.nics]
            await self.tell_ports(guest)
            started = self._start(folder, record, [sock.fileno() for sock in sockets], taps, incoming=incoming)
        started_here = Hypervisor(process=started.process, monitor=folder.monitors[0], words=started.words)
        hypervisor = self._know(folder.server_id, started_here)
        try:
            await hypervisor.greet(timeout_s=_START_SECONDS)
            # All that the guest can read or write, a rescue's disk and the config drive too.
            for device in (await hypervisor.devices_of_nodes()).values():
                await hypervisor.block_set_io_throttle(
                    device,
                    group=_THROTTLE,
                    bytes_per_second=self.limits.disk_mib_per_second << 20,
                    requests_per_second=self.limits.disk_requests_per_second,
                )
        except BaseException:
            await hypervisor.kill()
            raise
        return hypervisor

    def require_devices(self, devices: Devices) -> None:
        """DriverError for a device that this host does not offer."""
        missing = lacking(devices, chosen_devices.offered(self.facts.drivers))
        if missing is not None:
            raise DriverError(f"DEVICES: this host does not offer {missing}")

    async def _tap(self, nic: Nic, opened: ExitStack) -> int:
        """A port's tap, open until QEMU has inherited it. One of a port without rules leads nowhere: the port may have
        been deleted since the guest ran last, and the reconciler takes its NIC away once the guest runs."""
        if self.network is None:
            raise DriverError("NO_NETWORKS: this host cannot wire guests")
        fd = await self.network.plug_anyway(nic.port_id)
        opened.callback(os.close, fd)
        return fd

    async def tell_ports(self, guest: Guest) -> None:
        """Tell this host's metadata service which guest is on these ports."""
        for nic in guest.nics:
            if self.network is not None:
                folder = self.folder(guest.server_id)
                files = documents(guest, self.network.wiring, folder.read_told(), folder.read_posted())
                await self.network.tell(nic.port_id, files)

    def _start(
        self, folder: GuestFolder, record: GuestRecord, sockets: list[int], taps: list[int], *, incoming: bool
    ) -> Started:
        guest = record.guest
        machine = Machine(
            binary=self.facts.binary,
            accelerator=self.facts.accelerator,
            folder=self.sandbox.folder_inside(folder),
            monitor_fds=tuple(range(3, 3 + len(folder.monitors))),
            agent_fd=3 + len(folder.monitors) if guest.agent else None,
            tap_fds=tuple(range(3 + len(sockets), 3 + len(sockets) + len(taps))),
            incoming=incoming,
            config_drive=guest_files.look(folder, guest_files.CONFIG_DRIVE) is not None,
            rescued=record.rescued,
            rescue_bus=record.rescue_bus,
            rescue_device=record.rescue_device,
        )
        return self.sandbox.start(
            arguments(guest, machine),
            folder,
            uid=record.uid,
            inherited=[*sockets, *taps],
            bounds=_bounds(record),
            devices=("/dev/kvm",) if self.facts.accelerator == "kvm" else (),
        )

    async def remove(self, server_id: str) -> None:
        """Kill the process and remove all that the guest has here. Absent is success. It may be repeated."""
        self.stop_tasks(server_id)
        folder = self.folder(server_id)
        hypervisor = self.hypervisor(server_id)
        if hypervisor is not None:
            await hypervisor.kill()
        self.hypervisors.pop(server_id, None)
        self.snapshots.pop(server_id, None)
        self.offered.pop(server_id, None)
        await self.sandbox.forget(server_id)
        await asyncio.to_thread(folder.remove)
        self.sandbox.give_back_uids(folder.path)

    # -- background work: one task per guest and kind, which can begin again after a restart

    def start_task(self, server_id: str, kind: str, work: Coroutine[None, None, None]) -> None:
        key = (server_id, kind)
        before = self._tasks.pop(key, None)
        if before is not None:
            before.cancel()
        task = asyncio.create_task(work, name=f"{kind}:{server_id}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._task_ended(key, done))

    def start_lasting_task(self, server_id: str, kind: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Work that knows no history, and that nobody but the next agent would begin again: it outlives `PASSING`."""
        self.start_task(server_id, kind, lasting(f"{kind} of guest {server_id}", work))

    def has_task(self, server_id: str, kind: str) -> bool:
        return (server_id, kind) in self._tasks

    def _task_ended(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and task.exception() is not None:
            log.error("%s of guest %s ended: %s", key[1], key[0], task.exception())

    def stop_tasks(self, server_id: str) -> None:
        for (owner, _), task in list(self._tasks.items()):
            if owner == server_id and task is not asyncio.current_task():
                task.cancel()

    async def stop_task(self, server_id: str, kind: str) -> None:
        """Cancel it and wait until it has ended."""
        task = self._tasks.get((server_id, kind))
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Let go of guests without stopping them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, DriverError):
                await task
        for hypervisor in self.hypervisors.values():
            await hypervisor.let_go()
        self.hypervisors.clear()

    # -- observation

    async def observe(self, server_id: str) -> GuestState:
        record = self.folder(server_id).read()
        if record is None:
            return GuestState.ABSENT
        hypervisor = self.hypervisor(server_id)
        if hypervisor is None:
            return _state_without_process(record)
        try:
            run_state = await hypervisor.run_state()
            if run_state in ("finish-migrate", "postmigrate") and record.copy is not None:
                status = (await hypervisor.migration_status()).status
                if status == "completed" or run_state == "postmigrate" or hypervisor.ready:
                    return GuestState.HANDED_OVER
        except DriverError:
            if not hypervisor.alive:
                return _state_without_process(record)
            raise
        return _state_of(record, run_state)


async def lasting(name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Do work that nobody else would begin again."""
    told = ""
    while True:
        try:
            return await work()
        except PASSING as problem:
            if str(problem) != told:
                log.warning("%s begins anew: %s", name, problem)
            told = str(problem)
        await asyncio.sleep(AGAIN_SECONDS)


def _state_without_process(record: GuestRecord) -> GuestState:
    if record.role is Role.OWN and record.intent is Intent.STOPPED:
        return GuestState.STOPPED
    if record.role is Role.OWN and record.intent is Intent.SUSPENDED:
        return GuestState.SUSPENDED
    return GuestState.CRASHED


def _state_of(record: GuestRecord, run_state: str) -> GuestState:
    """QEMU's run state in our terms. Only our record knows who paused the guest and whether it may run here."""
    if run_state == "running":
        return GuestState.RUNNING
    if record.role is Role.INCOMING or run_state == "inmigrate":
        return GuestState.INCOMING if run_state in ("inmigrate", "paused") else GuestState.CRASHED
    if run_state == NEVER_RUN and record.intent is Intent.SUSPENDED:  # Its agent died before it was booted.
        return GuestState.SUSPENDED
    if run_state in ("shutdown", NEVER_RUN):
        return GuestState.STOPPED
    if run_state in ("guest-panicked", "internal-error"):
        return GuestState.CRASHED
    if run_state == "finish-migrate":
        return GuestState.PAUSED if record.user_paused else GuestState.RUNNING
    return GuestState.PAUSED


def refuse_while_moving(record: GuestRecord) -> None:
    """A guest in a move has two processes; only the move's own verbs may let either run."""
    if record.role is Role.INCOMING:
        raise DriverError("MOVING: a destination that is not committed yet")
    if record.copy is not None and record.copy.outcome in (None, MigrationPhase.COMPLETED):
        raise DriverError("MOVING: a live migration is under way")
