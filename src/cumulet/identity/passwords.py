"""Passwords: argon2id in a small pool of its own, so that a flood of logins cannot hold up the rest of the API."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import argon2

from cumulet.errors import Unavailable

T = TypeVar("T")

LONGEST_PASSWORD = 1024
"""Characters; longer ones are refused before any work is done."""
WORKERS = 2
MOST_WAITING = 64
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
        self._pool = ThreadPoolExecutor(WORKERS, "argon2")
        self._waiting = 0
        # Somebody's password that nobody knows: what the password of an unknown user is compared with.
        self._nobody: Future[str] = self._pool.submit(self._hasher.hash, "\0")

    async def hash(self, password: str) -> str:
        return await self._run(self._hasher.hash, password)

    def begin_hash(self, password: str) -> Future[str]:
        """For bootstrap only, which has no event loop to wait in and other work meanwhile."""
        return self._pool.submit(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is the one hashed; False, after the same work, where there is no hash."""
        return await self._run(self._matches, password_hash, password)

    def outdated(self, password_hash: str) -> bool:
        """Whether it was made at another price than is paid now; unequal prices would tell known users from unknown."""
        return bool(self._hasher.check_needs_rehash(password_hash))

    def _matches(self, password_hash: str | None, password: str) -> bool:
        try:
            self._hasher.verify(password_hash or self._nobody.result(), password)
        except argon2.exceptions.VerifyMismatchError:
            return False
        return password_hash is not None

    async def _run(self, work: Callable[..., T], *arguments: str | None) -> T:
        if self._waiting >= MOST_WAITING:
            raise Unavailable("Too many logins at once. Try again soon.", headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=True)
