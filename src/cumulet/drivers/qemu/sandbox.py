"""Starts QEMU and qemu-img with as little power as can be: own uid, own root, no capabilities, cgroup, limits."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cumulet.confined import tools, user_ids, users
from cumulet.confined.tools import ToolFailed, Words, limits_for, line_of
from cumulet.drivers.qemu.process import identify, note_child
from cumulet.drivers.qemu.record import GuestFolder, ProcessId
from cumulet.host.driver import DriverError

log = logging.getLogger(__name__)

UIDS = range(70_000, 74_000)
"""Of guests, unless told otherwise: above all that systemd and adduser give out, below the first subordinate ids."""
_CGROUP = Path("/sys/fs/cgroup")
_LEFT_SECONDS = 3600.0
"""So old is an empty cgroup that is removed: that of a guest that is just being started is empty for a moment, too."""

_GUEST_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024, "RLIMIT_NPROC": 512}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a guest's cgroup allows; nothing is bounded where there is no writable cgroup."""

    memory_bytes: int
    cpus: int
    file_bytes: int
    """The largest file it may write; the kernel's own limit, where there is a cgroup and where there is none."""


@dataclass(slots=True, kw_only=True)
class Started:
    """A process just started, and its standard output and error as far as they fit."""

    process: ProcessId
    words: Words


@dataclass(slots=True)
class Sandbox:
    """One per driver. `host` and the state folder keep two agents on one machine apart."""

    host: str
    as_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    uids: range = UIDS
    """User ids for guests; the last one is for `probe` and given to no guest. Without any, guests run as this process
    does, which in a user namespace is not the machine's root."""
    own_root: bool = False
    """Guests get a mount namespace with a root of their own. Set by `probe`."""

    async def probe(self) -> None:
        """Find out what works by doing it. Raises `DriverError` where root cannot confine (see the message)."""
        if not self.as_root:
            return
        if not self.uids and user_ids.are_the_machines_own():
            raise DriverError("UIDS: guests would run as root; give them users of their own (`guest_uids`)")
        if self.uids and (problem := user_ids.problem(self.uids)) is not None:
            raise DriverError(f"UIDS: {problem}; set `guest_uids` to others")
        problem = await asyncio.to_thread(tools.problem, self.uids[-1] if self.uids else None)
        self.own_root = problem is None
        if problem is not None:
            log.warning("guests get no root folder of their own here: %s", problem)

    def folder_inside(self, folder: GuestFolder) -> PurePosixPath:
        """A guest's folder as its QEMU sees it."""
        return PurePosixPath("/vm") if self.own_root else PurePosixPath(folder.vm)

    # -- uids

    def take_uid(self, owner: Path) -> int | None:
        """A uid that no other guest of this machine uses, recorded for `owner`. None where we are not root, or have
        none to give."""
        if not self.as_root or not self.uids:
            return None
        try:
            return users.take(self.uids, owner)
        except users.NoUserLeft:
            raise DriverError("UIDS_EXHAUSTED: no free user id for another guest") from None

    def keep_uid(self, uid: int | None, owner: Path) -> None:
        """After a restart of the machine: note again what the guest's record says."""
        if uid is not None and self.as_root:
            users.keep(uid, owner)

    def give_back_uids(self, owner: Path) -> None:
        if self.as_root and self.uids:
            users.give_back(owner)

    # -- guests

    def start(
        self,
        command: Sequence[str],
        folder: GuestFolder,
        *,
        uid: int | None,
        inherited: Sequence[int],
        bounds: Bounds,
        devices: Sequence[str] = (),
    ) -> Started:
        """Start a guest's QEMU, detached: it outlives the agent. `inherited` become file descriptors 3, 4, ..."""
        spec: dict[str, object] = {
            "process_file": str(folder.process),
            "parent": None,
            "root": str(folder.root) if self.own_root else None,
            "binds": [[str(folder.vm), "/vm", "rw"]],
            "devices": ["/dev/null", "/dev/zero", "/dev/urandom", *devices],
            "cgroups": self._make_cgroups(folder.server_id, bounds),
            "limits": limits_for(uid, _GUEST_LIMITS) | {"RLIMIT_FSIZE": bounds.file_bytes},
            "uid": uid,
            "groups": user_ids.usable_groups(os.stat(device).st_gid for device in devices),
            "environment": {},
            "command": list(command),
        }
        return _spawn(spec, inherited)

    async def forget(self, server_id: str) -> None:
        """Remove the guest's cgroups. Its process has ended, but the kernel may not be done with its threads."""
        left = [controller / "cumulet" / self._group(server_id) for controller in _controllers()]
        for _ in range(100):
            for group in left:
                with suppress(OSError):
                    group.rmdir()
            # Those of the machine's root cannot be seen, where this agent is another's: it has none there.
            left = [group for group in left if os.path.exists(group)]
            if not left:
                return
            await asyncio.sleep(0.01)

    def remove_left_groups(self) -> None:
        """Remove cgroups that nobody has used for long: of guests that ended with their cloud, or whose host's state
        folder is gone. The kernel removes none that a process is in."""
        if not self.as_root:
            return
        for controller in _controllers():
            for group in (controller / "cumulet").glob("*-*"):
                with suppress(OSError):
                    if time.time() - group.stat().st_mtime > _LEFT_SECONDS:
                        group.rmdir()

    def _group(self, server_id: str) -> str:
        return f"{self.host}-{server_id}"

    def _make_cgroups(self, server_id: str, bounds: Bounds) -> list[str]:
        if not self.as_root:
            return []
        period_us = 100_000
        quota_us = (bounds.cpus + 1) * period_us
        values = {
            "memory.limit_in_bytes": str(bounds.memory_bytes),
            "memory.max": str(bounds.memory_bytes),
            "cpu.cfs_period_us": str(period_us),
            "cpu.cfs_quota_us": str(quota_us),
            "cpu.max": f"{quota_us} {period_us}",
            "pids.max": "256",
        }
        entered: list[str] = []
        bounded: set[str] = set()
        for controller in _controllers():
            group = controller / "cumulet" / self._group(server_id)
            if (controller / "cgroup.controllers").exists():  # v2 hands controllers down from parent to child.
                for parent in (controller, controller / "cumulet"):
                    with suppress(OSError):
                        parent.mkdir(exist_ok=True)
                        (parent / "cgroup.subtree_control").write_text("+memory +cpu +pids")
            try:  # A machine may show cgroups that it does not let us change.
                group.mkdir(parents=True, exist_ok=True)
                for name, value in values.items():
                    if (group / name).exists():
                        (group / name).write_text(value)
                        bounded.add(name.partition(".")[0])
                entered.append(str(group / "cgroup.procs"))
            except OSError as problem:
                log.warning("no cgroup at %s: %s", controller, problem.strerror, extra={"server_id": server_id})
        if missing := sorted({"memory", "cpu", "pids"} - bounded):
            log.warning("a guest runs without a bound of its %s", " and ".join(missing), extra={"server_id": server_id})
        return entered

    # -- tools

    async def run_tool(
        self,
        command: Sequence[str],
        *,
        uid: int | None,
        root: Path,
        binds: Sequence[tuple[Path, str, str]],
        timeout_s: float,
        file_size_bytes: int = 1 << 20,
        moved: Callable[[int], None] | None = None,
    ) -> None:
        """Run a program on untrusted data: no network, only bound paths writable. Raises `DriverError`.

        `moved`: told again and again how many bytes it has read and written; 0 where that cannot be known.
        """
        try:
            await tools.run(
                command,
                uid=uid if self.as_root else None,
                root=root if self.own_root else None,
                binds=binds,
                timeout_s=timeout_s,
                cpu_seconds=max(tools.CPU_SECONDS, int(timeout_s)),
                file_size_bytes=file_size_bytes,
                moved=moved,
            )
        except ToolFailed as failed:
            raise DriverError(str(failed)) from failed


def _spawn(spec: Mapping[str, object], inherited: Sequence[int]) -> Started:
    words = Words()
    with ExitStack() as cleanup:
        # Moved out of the way first: a source must not be overwritten as an earlier one's target.
        sources = []
        for fd in (words.fd, words.fd, *inherited):
            sources.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100))
            cleanup.callback(os.close, sources[-1])
        actions: list[tuple[int, int, int]] = [
            (os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources, start=1)
        ]
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        cleanup.callback(os.close, null)
        sources.append(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, 100))
        cleanup.callback(os.close, sources[-1])
        actions.append((os.POSIX_SPAWN_DUP2, sources[-1], 0))
        line = line_of(spec)
        pid = os.posix_spawn(line[0], line, {}, file_actions=actions, setsid=True)
    note_child(pid)
    process = identify(pid)
    if process is None:
        raise DriverError(f"START_FAILED: {words.read()[-500:]}")
    return Started(process=process, words=words)


def _controllers() -> list[Path]:
    """Where groups can be made: one hierarchy (v2) or one per controller (v1)."""
    if (_CGROUP / "cgroup.controllers").exists():
        return [_CGROUP]
    return [path for name in ("memory", "cpu", "pids") if (path := _CGROUP / name).is_dir()]
