"""Passwords: argon2id on two threads of its own, so that a flood of logins cannot hold up the rest of the API.

The threads serve addresses by turns (and projects, whose users set passwords), so that a flood holds up only itself.
One that asks without a pause is soon served by one of them alone: a hash takes a core, and the API needs one, too.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import argon2

from cumulet.db.fair_queue import FairQueue, Job, serve_behind_others

T = TypeVar("T")

SHORTEST_PASSWORD = 8
"""Characters; NIST SP 800-63B's least. Passwords that are shorter go on to work until they are changed."""
LONGEST_PASSWORD = 1024
"""Characters; longer ones are refused before any work is done."""
WORKERS = 2
MOST_WAITING = 256
"""Passwords of one address, or of one project's users, that may wait. One address has no more connections."""
LONG_SECONDS = 1.0
"""After so much work for one address without a pause, one thread serves it."""
_M_MMAP_THRESHOLD = -3


def _return_large_blocks() -> None:
    """Have glibc give blocks like argon2's 19 MiB back once they are freed.

    Of itself it keeps them from the second one on, a block for every thread that has ever hashed.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 4 << 20)


class Passwords:
    """Hashes and checks. Checking costs the same whether or not there is a hash to check against."""

    def __init__(self, *, memory_kib: int) -> None:
        _return_large_blocks()
        self._hasher = argon2.PasswordHasher(time_cost=2, memory_cost=memory_kib, parallelism=1, type=argon2.Type.ID)
        self._queue = FairQueue(most_at_once=WORKERS, most_waiting=MOST_WAITING, long_seconds=LONG_SECONDS)
        self._threads = [
            threading.Thread(target=serve_behind_others, args=(self._queue,), name=f"argon2-{n}", daemon=True)
            for n in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()
        # The hash that the password of an unknown user is compared with.
        self._nobody: Future[str] = self.begin_hash("\0")

    async def hash(self, password: str) -> str:
        return await asyncio.wrap_future(self.begin_hash(password))

    def begin_hash(self, password: str) -> Future[str]:
        """The hash in the future; bootstrap has no event loop to wait in, and other work meanwhile."""
        return self._begin(lambda: self._hasher.hash(password))

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is the one hashed; False, after the same work, where there is no hash."""
        return await asyncio.wrap_future(self._begin(lambda: self._matches(password_hash, password)))

    def outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than today's. Unequal work would tell whether a user exists."""
        return bool(self._hasher.check_needs_rehash(password_hash))

    def _matches(self, password_hash: str | None, password: str) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobody.result(), password)
        except argon2.exceptions.VerifyMismatchError:
            return False
        return password_hash is not None

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        job = Job(fn=lambda _: work())
        self._queue.put(job)
        return job.future

    def close(self) -> None:
        self._queue.close()
        for thread in self._threads:
            thread.join()
