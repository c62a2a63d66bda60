"""The lock on a host's folder: the next agent of a host waits until the one before has ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

from cumulet.agent import watchdog


@contextlib.asynccontextmanager
async def only_one(state: Path) -> AsyncIterator[None]:
    """Until the block ends, this process is the agent of the host with this state folder, which is made."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / watchdog.AGENT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        watchdog.note_agent(state)
        yield
    finally:
        os.close(lock)
