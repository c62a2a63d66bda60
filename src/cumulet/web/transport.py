"""What both protocols of the front door need of a connection: its transport, and its end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger(__name__)

STALLED_SECONDS = 60.0
"""How long a client may take nothing of an answer that waits to be sent."""
GATHERED = 65_536
"""Bytes of an answer that are held back, within one turn of the event loop, to be sent at once."""


class Gathering:
    """A transport that gathers what is written in one turn of the event loop: head and body go out in one segment."""

    __slots__ = ("_inner", "_loop", "_pieces", "_size", "full")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.full = False
        """Whether what came is still being worked on: until then no more is read."""
        self._inner = inner
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self.flush)
        self._pieces.append(data)
        self._size += len(data)
        if self._size > GATHERED:
            self.flush()

    def flush(self) -> None:
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._inner.write(data)

    def resume_reading(self) -> None:
        if not self.full:
            self._inner.resume_reading()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def close(self) -> None:
        self.flush()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def end_for_our_error(transport: asyncio.Transport) -> None:
    """asyncio would do so too, but its line says something else each time, so repeats would not be counted."""
    log.exception("a connection was ended: what came on it could not be read")
    transport.abort()
