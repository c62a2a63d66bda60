"""Time, ids and randomness. Everything nondeterministic comes from a `Clock`, so that the simulation can replace it."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """Wall time in microseconds since the epoch, monotonic time in seconds, ids, and random bytes."""

    def now_us(self) -> int: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...
    def uuid(self) -> str: ...
    def token_bytes(self, count: int) -> bytes: ...
    def random(self) -> float:
        """A float in [0, 1): for jitter and tie-breaks, never for secrets."""
        ...


class SystemClock:
    """The machine's own clock and entropy."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def uuid(self) -> str:
        return str(uuid.uuid4())

    def token_bytes(self, count: int) -> bytes:
        return os.urandom(count)

    def random(self) -> float:
        return random.random()  # noqa: S311 - jitter, not a secret


async def sleep_unless_set(clock: Clock, seconds: float, event: asyncio.Event) -> None:
    """Sleep, or less if `event` is set, now or meanwhile."""
    sleep = asyncio.ensure_future(clock.sleep(seconds))
    wait = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((sleep, wait), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleep.cancel()
        wait.cancel()


async def sleep_unless_woken(clock: Clock, seconds: float, woken: asyncio.Event) -> None:
    """As `sleep_unless_set`; the event is cleared, for the next time."""
    await sleep_unless_set(clock, seconds, woken)
    woken.clear()


def us_of(text: str) -> int:
    """A time in ISO 8601, UTC where it names no zone, in microseconds since 1970. ValueError for anything else."""
    when = datetime.fromisoformat(text)
    return ((when if when.tzinfo is not None else when.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def iso_z(time_us: int | None) -> str | None:
    """``2026-11-23T16:14:05Z``: compute's older fields, image, network (RFC 3339, whole seconds)."""
    if time_us is None:
        return None
    t = time.gmtime(time_us // 1_000_000)
    return f"{t[0]:04}-{t[1]:02}-{t[2]:02}T{t[3]:02}:{t[4]:02}:{t[5]:02}Z"


def iso_us(time_us: int | None) -> str | None:
    """``2026-11-23T16:14:05.000000``: compute's migrations, services, extended attributes (no zone, microseconds)."""
    if time_us is None:
        return None
    return datetime.fromtimestamp(time_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
