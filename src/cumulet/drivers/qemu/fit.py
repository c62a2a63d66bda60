"""Whether a machine can be a host of real guests."""

from __future__ import annotations

import shutil
from pathlib import Path

from cumulet.drivers.qemu.facts import QemuMissing, probe
from cumulet.host.joining import Refused

LEAST_SPACE_BYTES = 2 << 30


async def require_fit(state: Path, *, emulated: bool) -> None:
    """Raises Refused unless this machine can be a host whose guests are below `state`; `emulated`: even without KVM."""
    try:
        facts = await probe()
    except QemuMissing as problem:
        raise Refused(
            "NO_QEMU", f"{problem}: install Debian's qemu-system-x86 and qemu-utils on this machine"
        ) from None
    if facts.kvm_problem is not None and not emulated:
        raise Refused(
            "NO_KVM", f"this machine has no KVM ({facts.kvm_problem}): to join with emulated guests, add --emulated"
        )
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < LEAST_SPACE_BYTES:
        raise Refused("NO_SPACE", f"{there} has {free >> 20} MiB free, and a host needs {LEAST_SPACE_BYTES >> 20}")
