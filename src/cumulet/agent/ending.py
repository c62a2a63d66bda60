"""Ends the guests of a host that is no host any more, by what its state folder knows of their processes."""

from __future__ import annotations

import os
from pathlib import Path

from cumulet.agent import watchdog
from cumulet.agent.only_one import holder, taken
from cumulet.drivers.qemu import process
from cumulet.drivers.qemu.record import folders


class NotEnded(Exception):
    """Guests were not ended; the message says why, and what to do."""


async def end_guests(state: Path) -> int:
    """SIGKILL to every guest's process of the host with this state folder; how many lived. Raises NotEnded, OSError."""
    if not state.is_dir():
        raise NotEnded(f"there is no folder {state}")
    lock = os.open(state / watchdog.AGENT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not taken(lock):
            raise NotEnded(f"the agent of {state} runs (process {holder(state)}): stop it first")
        count = 0
        for folder in folders(state / "qemu" / "guests"):
            guest = folder.read_process()
            if guest is None or not process.alive(guest):
                continue
            if not await process.kill(guest):
                raise NotEnded(f"the guest {folder.path.name} (process {guest.pid}) does not end")
            count += 1
        return count
    finally:
        os.close(lock)
