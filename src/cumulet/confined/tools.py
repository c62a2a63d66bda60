"""Runs short programs on untrusted data with as little power as can be: own uid, own root, no network, limits.

They end with the process that runs them, however that ends, and begin no others.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cumulet.confined import jail

_WORDS_BYTES = 64 << 10
CPU_SECONDS = 600
LOOK_SECONDS = 1.0
"""How often it is looked how far a program is."""
_TRIAL = "/usr/bin/true"
_LIMITS = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 64, "RLIMIT_NPROC": 128, "RLIMIT_AS": 2 << 30}
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""qemu-img begins up to 64 threads where a disk is slow, beside its own two. With an arena of 128 MiB for each of them
it had no room for so many, and ended with `qemu_thread_create: Resource temporarily unavailable`."""


class ToolFailed(Exception):
    """The message begins with TOOL_FAILED or TOOL_TIMEOUT, and ends with what the program said."""


class ToolTimeout(ToolFailed):
    """It took too long, and was killed."""


class Words:
    """The first 64 KiB a process says, in a sealed memory file: it can neither block on it nor fill a disk with it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("words", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, _WORDS_BYTES)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)

    def read(self) -> str:
        return os.pread(self.fd, _WORDS_BYTES, 0).rstrip(b"\0").decode(errors="replace").strip()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()


def line_of(spec: Mapping[str, object]) -> list[str]:
    """The command that becomes the command of `spec`, confined: see `jail.py`."""
    return [sys.executable, "-I", "-S", jail.__file__, json.dumps(spec)]


def limits_for(uid: int | None, limits: Mapping[str, int]) -> dict[str, int]:
    """How many processes a user may have counts for one of the guest's own only: else it counts all that we run."""
    return {name: limit for name, limit in limits.items() if uid is not None or name != "RLIMIT_NPROC"}


async def run(
    command: Sequence[str],
    *,
    uid: int | None,
    root: Path | None,
    binds: Sequence[tuple[Path, str, str]],
    timeout_s: float,
    file_size_bytes: int = 1 << 20,
    cpu_seconds: int = CPU_SECONDS,
    moved: Callable[[int], None] | None = None,
) -> None:
    """Run a program: no network, only bound paths writable. Raises `ToolFailed`.

    uid: the user it becomes; None: it stays who we are. root: an empty folder for a root of its own, in which it begins
    in `/vm`, one of `binds` (source, target, "ro" or "rw"); None: it sees the machine's. moved: told again and again
    how many bytes it has read and written.
    """
    spec = _spec(command, uid=uid, root=root, binds=binds, file_size_bytes=file_size_bytes, cpu_seconds=cpu_seconds)
    words = Words()
    process = await asyncio.create_subprocess_exec(
        *line_of(spec), stdin=asyncio.subprocess.DEVNULL, stdout=words.fd, stderr=words.fd, start_new_session=True
    )
    try:
        async with asyncio.timeout(timeout_s):
            status = await _end_of(process, moved)
    except TimeoutError as late:
        raise ToolTimeout(f"TOOL_TIMEOUT: {Path(command[0]).name} took more than {timeout_s:g} s") from late
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status != 0:
        raise ToolFailed(f"TOOL_FAILED: {Path(command[0]).name}: {words.read()[-500:] or status}")


async def _end_of(process: asyncio.subprocess.Process, moved: Callable[[int], None] | None) -> int:
    if moved is None:
        return await process.wait()
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                return await process.wait()
        moved(_bytes_moved(process.pid))


def _bytes_moved(pid: int) -> int:
    """Bytes that a process has read and written, files' holes not counted; 0: we may not know, or it has ended."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    counters = dict(line.split(": ") for line in lines)
    return int(counters["rchar"]) + int(counters["wchar"])


def problem(uid: int | None) -> str | None:
    """Why this machine lets us confine no program in a root of its own, found out by doing it; None where it does.

    For a start: it takes as long as a Python process.
    """
    # A folder that an unprivileged user could not reach without a root of its own.
    with tempfile.TemporaryDirectory(prefix="cumulet-probe-") as scratch:
        root, vm = Path(scratch) / "root", Path(scratch) / "vm"
        root.mkdir()
        vm.mkdir()
        vm.chmod(0o755)  # Whatever our mask is.
        spec = _spec([_TRIAL], uid=uid, root=root, binds=[(vm, "/vm", "ro")], file_size_bytes=0, cpu_seconds=10)
        try:
            done = subprocess.run(
                line_of(spec), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            return str(failed)
    return (done.stderr.strip() or f"status {done.returncode}")[-500:] if done.returncode else None


def _spec(
    command: Sequence[str],
    *,
    uid: int | None,
    root: Path | None,
    binds: Sequence[tuple[Path, str, str]],
    file_size_bytes: int,
    cpu_seconds: int,
) -> dict[str, object]:
    return {
        "process_file": None,
        "parent": os.getpid(),
        "root": None if root is None else str(root),
        "binds": [[str(source), target, mode] for source, target, mode in binds],
        "devices": ["/dev/null", "/dev/zero", "/dev/urandom"],
        "cgroups": [],
        "limits": limits_for(uid, _LIMITS) | {"RLIMIT_CPU": cpu_seconds, "RLIMIT_FSIZE": file_size_bytes},
        "uid": uid,
        "groups": [],
        "environment": _ENVIRONMENT,
        "command": list(command),
    }
