"""Sessions on a guest's serial line or screen: a host holds the output that they have not read yet.

A session's bytes travel in questions to the host's agent and in answers, over the bus: no host listens for them. Both
directions count bytes from 0, so that a repeated question has the same effect and answer.
"""

from __future__ import annotations

import asyncio

from cumulet.host.driver import DriverError, Printed

BUFFER_BYTES = 256 * 1024
"""The most that a session holds. Beyond it a serial line drops the oldest output, and the reader learns how much; a
screen waits (`Session.room`)."""
CHUNK_BYTES = 64 * 1024
"""The most bytes in one question or answer."""
SESSIONS_OF_ONE = 4
"""The most sessions of one guest's line, and of its screen, at once."""
UNHEARD_SECONDS = 60.0
"""A session that is not read for this long has lost its reader, and ends."""


class Session:
    """One reader of a serial line or a screen. Output waits here until it is read."""

    def __init__(self) -> None:
        self.typed = 0
        self.ended: str | None = None
        self.asked_at = 0.0
        self._held = bytearray()
        self._from = 0
        self._news = asyncio.Event()
        self._taken = asyncio.Event()

    def print(self, data: bytes) -> None:
        self._held += data
        if (over := len(self._held) - BUFFER_BYTES) > 0:
            del self._held[:over]
            self._from += over
        self._news.set()

    def end(self, why: str) -> None:
        self.ended = self.ended or why
        self._news.set()

    async def read(self, position: int, wait_seconds: float) -> Printed:
        """Output from `position` on; what is before it has arrived and is dropped."""
        if position > self._from:
            taken = min(position - self._from, len(self._held))
            del self._held[:taken]
            self._from += taken
            self._taken.set()
        if not self._held and self.ended is None:
            self._news.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._news.wait()
            except TimeoutError:
                pass
        data = bytes(self._held[:CHUNK_BYTES])
        return Printed(position=self._from, data=data, ended=self.ended if len(data) == len(self._held) else None)

    def all_before(self, position: int) -> bool:
        """Whether there is no output at `position` or after it."""
        return position >= self._from + len(self._held)

    async def room(self) -> None:
        """Wait until `CHUNK_BYTES` more fit: for a screen, which may drop nothing."""
        while len(self._held) > BUFFER_BYTES - CHUNK_BYTES:
            self._taken.clear()
            await self._taken.wait()

    def fresh(self, position: int, data: bytes) -> bytes:
        """The part of `data` (at `position`) that was not typed before."""
        new = data[max(0, self.typed - position) :] if position <= self.typed else b""
        self.typed += len(new)
        return new


class Sessions:
    """The sessions of one guest's line or screen, by name."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def __contains__(self, name: str) -> bool:
        return name in self._sessions

    def open(self, name: str, now: float) -> Session:
        self.forget_unheard(now)
        if name not in self._sessions:
            if len(self._sessions) >= SESSIONS_OF_ONE:
                raise DriverError(f"TOO_MANY_CONSOLES: {SESSIONS_OF_ONE} people are on this console already")
            self._sessions[name] = Session()
        return self.get(name, now)

    def get(self, name: str, now: float) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise DriverError("NO_SESSION: this console session has ended")
        session.asked_at = now
        return session

    def close(self, name: str) -> None:
        session = self._sessions.pop(name, None)
        if session is not None:
            session.end("closed")

    def print(self, data: bytes) -> None:
        for session in self._sessions.values():
            session.print(data)

    def end(self, why: str) -> None:
        """End all sessions. Each is kept until its reader has read why, or does not read any more."""
        for session in self._sessions.values():
            session.end(why)

    def unheard(self, now: float) -> list[str]:
        """Names of the sessions that have lost their readers."""
        return [name for name, session in self._sessions.items() if now - session.asked_at > UNHEARD_SECONDS]

    def forget_unheard(self, now: float) -> None:
        for name in self.unheard(now):
            self.close(name)
