"""Sessions of people on a guest's serial line or screen: a host holds the output that they have not read yet.

A session's bytes travel as questions to the host's agent, over the connection that there is: no host listens for them.
Both directions count bytes from 0, so that a question that is asked again gets, or does, the same.
"""

from __future__ import annotations

import asyncio

from cumulet.host.driver import DriverError, Printed

BUFFER_BYTES = 256 * 1024
"""What a session holds of what was not taken yet. Of a serial line the oldest goes then, and the reader is told how
much; a screen waits (`Session.room`)."""
CHUNK_BYTES = 64 * 1024
"""At most so much in one question or answer."""
SESSIONS_OF_ONE = 4
"""Of one guest, at once."""
UNHEARD_SECONDS = 60.0
"""A session that nobody asks about for so long has lost its reader."""


class Session:
    """One reader of a serial line or a screen: what is printed waits here until it is taken."""

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
        """What is before `position` has arrived, and is forgotten."""
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
        """Whether nothing was printed that lies at or after this."""
        return position >= self._from + len(self._held)

    async def room(self) -> None:
        """Until `CHUNK_BYTES` more fit, for who may leave nothing out."""
        while len(self._held) > BUFFER_BYTES - CHUNK_BYTES:
            self._taken.clear()
            await self._taken.wait()

    def fresh(self, position: int, data: bytes) -> bytes:
        """Of what is to be typed: what was not typed before."""
        new = data[max(0, self.typed - position) :] if position <= self.typed else b""
        self.typed += len(new)
        return new


class Sessions:
    """Those of one guest, by name."""

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
        """End all of them. Each is kept until its reader has asked once more and heard why, or has stopped asking."""
        for session in self._sessions.values():
            session.end(why)

    def unheard(self, now: float) -> list[str]:
        """Those that have lost their readers."""
        return [name for name, session in self._sessions.items() if now - session.asked_at > UNHEARD_SECONDS]

    def forget_unheard(self, now: float) -> None:
        for name in self.unheard(now):
            self.close(name)
