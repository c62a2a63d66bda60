"""What this machine's QEMU can do: it is asked and booted, never guessed from versions or files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cumulet.drivers.qemu import questions as c
from cumulet.drivers.qemu.qmp import Json
from cumulet.drivers.qemu.questions import Question

T = TypeVar("T")

BINARY = "qemu-system-x86_64"
_MACHINE_FAMILY = "pc-q35-"
_CPU_MODELS = ("Nehalem", "qemu64")
"""Best first. Every host of the last fifteen years offers them, and QEMU's own emulation, too."""

_NEEDED_CAPABILITIES = {"return-path", "events", "late-block-activate", "pause-before-switchover"}

# mov dx,0x501; mov al,0x10; out dx,al; hlt: tells the debug-exit device that real code ran in the guest.
_BOOT_SECTOR = bytes.fromhex("ba0105b010eef4ebfd").ljust(510, b"\0") + b"\x55\xaa"
_BOOT_SECTOR_STATUS = (0x10 << 1) | 1


class QemuMissing(Exception):
    """No usable QEMU; the message says what is missing and what to install."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QemuFacts:
    """Answers of `probe`."""

    binary: str
    qemu_img: str
    version: tuple[int, int, int]
    accelerator: str
    """``kvm`` or ``tcg``."""
    kvm_problem: str | None
    """Why KVM is not used; None if it is used."""
    machine_types: tuple[str, ...]
    """Versioned, newest first."""
    cpu_models: tuple[str, ...]
    """Usable here without missing features."""
    post_copy: bool
    """Whether this QEMU knows post-copy. Whether it may use it says `post_copy_problem`."""
    drivers: frozenset[str] = frozenset()
    """Names of the devices that it can make, among others."""

    @property
    def machine_type(self) -> str:
        return self.machine_types[0]

    @property
    def cpu_model(self) -> str:
        return next(model for model in _CPU_MODELS if model in self.cpu_models)

    @property
    def misses_even_memory(self) -> bool:
        """Whether a guest that is moved live loses what it writes just then, unless its memory is uneven
        (`host.uneven_memory`)."""
        return self.accelerator == "tcg" and self.version < (9, 0, 0)

    @property
    def version_number(self) -> int:
        """As libvirt counts: major * 1,000,000 + minor * 1,000 + micro."""
        major, minor, micro = self.version
        return major * 1_000_000 + minor * 1_000 + micro


async def probe() -> QemuFacts:
    """Ask this machine's QEMU. Takes about a second; raises `QemuMissing` with the reason."""
    binary, qemu_img = shutil.which(BINARY), shutil.which("qemu-img")
    if binary is None or qemu_img is None:
        raise QemuMissing("QEMU is not installed (Debian packages: qemu-system-x86 qemu-utils)")
    answers = await _ask(binary, "tcg", [c.VERSION, c.MACHINES, c.MIGRATION_CAPABILITIES, c.COMMANDS, c.TYPES])
    version = answers.of(c.VERSION).qemu
    capabilities = {entry.capability for entry in answers.of(c.MIGRATION_CAPABILITIES)}
    commands = {entry.name for entry in answers.of(c.COMMANDS)}
    lacking = (_NEEDED_CAPABILITIES - capabilities) | (set(c.NEEDED) - commands)
    if lacking:
        raise QemuMissing(f"this QEMU is too old: it lacks {', '.join(sorted(lacking))}")
    machine_types = [entry.name for entry in answers.of(c.MACHINES)]
    machine_types = sorted((name for name in machine_types if name.startswith(_MACHINE_FAMILY)), key=_age, reverse=True)
    kvm_problem = await _kvm_problem(binary)
    accelerator = "tcg" if kvm_problem else "kvm"
    cpu_models = await _usable_cpu_models(binary, accelerator)
    if not machine_types or not set(_CPU_MODELS) & set(cpu_models):
        raise QemuMissing("this QEMU has none of the machine types or CPU models that servers need")
    return QemuFacts(
        binary=binary,
        qemu_img=qemu_img,
        version=(version["major"], version["minor"], version["micro"]),
        accelerator=accelerator,
        kvm_problem=kvm_problem,
        machine_types=tuple(machine_types),
        cpu_models=tuple(cpu_models),
        post_copy="postcopy-ram" in capabilities,
        drivers=frozenset(entry.name for entry in answers.of(c.TYPES)),
    )


_USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")


def post_copy_problem(facts: QemuFacts) -> str | None:
    """Why guests cannot arrive here in post-copy; None if they can. An administrator may change it at any time.

    A destination fetches missing pages through userfaultfd(2), and guests' processes have no privileges.
    """
    if not facts.post_copy:
        return "this QEMU does not know post-copy"
    try:
        allowed = _USERFAULTFD.read_text().strip() == "1"
    except OSError:
        return "this kernel has no userfaultfd"
    return None if allowed else "unprivileged processes may not use userfaultfd (sysctl vm.unprivileged_userfaultfd=1)"


async def _kvm_problem(binary: str) -> str | None:
    """None if KVM runs a guest. The device file proves nothing: a nested KVM may open and then hang."""
    if not os.path.exists("/dev/kvm"):
        return "there is no /dev/kvm (enable virtualization in the firmware, load the kvm module)"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "this user may not open /dev/kvm (add it to the group kvm)"
    if os.geteuid() == 0 and os.stat("/dev/kvm").st_mode & 0o060 != 0o060:
        return "/dev/kvm is for root alone and guests do not run as root (give it to the group kvm, mode 0660)"
    try:
        if _CPU_MODELS[-1] not in await _usable_cpu_models(binary, "kvm"):
            return f"the processor lacks features of even {_CPU_MODELS[-1]}"
        return None if await _boots(binary) else "KVM opens but does not run a boot sector"
    except QemuMissing as problem:
        return f"KVM does not start: {problem}"


async def _usable_cpu_models(binary: str, accelerator: str) -> list[str]:
    answers = await _ask(binary, accelerator, [c.CPU_DEFINITIONS], machine="q35")
    return sorted(entry.name for entry in answers.of(c.CPU_DEFINITIONS) if entry.unavailable_features == ())


async def _boots(binary: str) -> bool:
    with tempfile.NamedTemporaryFile(prefix="cumulet-boot-") as sector:
        Path(sector.name).write_bytes(_BOOT_SECTOR.ljust(1 << 20, b"\0"))
        drive = {"driver": "raw", "node-name": "d", "file": {"driver": "file", "filename": sector.name}}
        command = [
            binary,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-machine",
            "q35,accel=kvm",
            "-m",
            "16M",
        ]
        command += ["-blockdev", json.dumps(drive), "-device", "virtio-blk-pci,drive=d,bootindex=0"]
        command += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
        status, _ = await _run(command, b"", timeout_s=5.0)
        return status == _BOOT_SECTOR_STATUS


class _Answers:
    """What a QEMU has answered."""

    def __init__(self, by_command: Mapping[str, Json]) -> None:
        self._by_command = by_command

    def of(self, question: Question[T]) -> T:
        """Raises `QemuMissing` where it has not, or with something else."""
        if question.command not in self._by_command:
            raise QemuMissing(f"QEMU does not answer {question.command}")
        try:
            return msgspec.convert(self._by_command[question.command], question.answer)
        except msgspec.ValidationError as problem:
            raise QemuMissing(f"QEMU answered {question.command} with something unexpected") from problem


async def _ask(binary: str, accelerator: str, questions: Sequence[Question[Any]], machine: str = "none") -> _Answers:
    command = [binary, "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"]
    command += ["-machine", f"{machine},accel={accelerator}"]
    _, output = await _run(command, c.script(questions), timeout_s=15.0)
    answers: dict[str, Json] = {}
    for line in output.splitlines():
        with suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict) and "return" in message and "id" in message:
                answers[message["id"]] = message["return"]
    return _Answers(answers)


async def _run(command: list[str], send: bytes, *, timeout_s: float) -> tuple[int | None, bytes]:
    """Run it to its end, which comes with ours at the latest: who asks may be killed, and QEMU minds no closed pipe."""
    if shutil.which("setpriv") is None:
        raise QemuMissing("setpriv is missing: install Debian's package util-linux")
    command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(send), timeout_s)
        return process.returncode, output
    except TimeoutError:
        return None, b""
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _age(machine_type: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in machine_type.removeprefix(_MACHINE_FAMILY).split("."))
