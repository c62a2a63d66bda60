"""The lock on a host's folder: the next agent of a host waits until the one before has ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from cumulet.agent import watchdog

log = logging.getLogger(__name__)

AGAIN_SECONDS = 0.05


@contextlib.asynccontextmanager
async def only_one(state: Path, *, level: int = logging.INFO) -> AsyncIterator[None]:
    """Until the block ends, this process is the agent of the host with this state folder, which is made.

    `level`: at which is logged that another agent has the folder, and which one.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / watchdog.AGENT_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        told = False
        while not taken(lock):  # No thread waits for it: nothing could end that wait.
            if not told:
                log.log(level, "%s has an agent already, process %s: waiting for its end", state, holder(state))
            told = True
            await asyncio.sleep(AGAIN_SECONDS)
        watchdog.note_agent(state)
        yield
    finally:
        os.close(lock)


def taken(lock: int) -> bool:
    """Whether the lock is this process's now: no other agent has it. It is let go with the descriptor."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(state: Path) -> str:
    """The number of the process that has the lock, or had it last."""
    noted = watchdog.noted_agent(state)
    return "unknown" if noted is None else str(noted.pid)
