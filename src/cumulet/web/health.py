"""Health of a process without an API: plain HTTP on a port that its operator chose, two paths, no secrets.

``GET /healthz``: 200 while the database answers. ``GET /readyz``: 200 while it can do its work, else 503 and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

from cumulet.db.engine import Database
from cumulet.db.health import problem_of
from cumulet.web.context import Presence

HEAD_SECONDS = 5.0
ANSWER_SECONDS = 5.0
MOST_HEAD_BYTES = 4096
MOST_CONNECTIONS = 32

Problem = Callable[[], Awaitable[str | None]]
"""What keeps a process from its work, or None."""


class HealthServer:
    """Listens until it is closed. Each request calls `healthy` or `ready`."""

    def __init__(self, healthy: Problem, ready: Problem) -> None:
        self._asked = {b"/healthz": healthy, b"/readyz": ready}
        self._server: asyncio.Server | None = None
        self._served = 0

    async def listen(self, address: str, port: int) -> int:
        """Listen; returns the port. OSError: the port is taken."""
        self._server = await asyncio.start_server(self._serve, address, port, limit=MOST_HEAD_BYTES)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served += 1
        try:
            if self._served <= MOST_CONNECTIONS:
                with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(HEAD_SECONDS):
                        head = await reader.readuntil(b"\r\n\r\n")
                    await self._answer(head, writer)
        except ConnectionError:
            return
        finally:
            self._served -= 1
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        words = head.partition(b"\r\n")[0].split(b" ")
        status, content = b"404 Not Found", {"status": "there are /healthz and /readyz"}
        if len(words) == 3 and words[0] not in (b"GET", b"HEAD"):
            status, content = b"405 Method Not Allowed", {"status": "only GET and HEAD"}
        elif len(words) == 3 and (problem_of := self._asked.get(words[1])) is not None:
            problem = await problem_of()
            status = b"200 OK" if problem is None else b"503 Service Unavailable"
            content = {"status": problem or "ok"}
        body = json.dumps(content).encode()
        writer.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            % (status, len(body))
        )
        if words[0] != b"HEAD":
            writer.write(body)
        async with asyncio.timeout(ANSWER_SECONDS):
            await writer.drain()


async def answer_health(place: tuple[str, int], db: Database, presence: Presence) -> HealthServer:
    """Answer at this address and port, until the server is closed. OSError: the port is taken."""

    async def healthy() -> str | None:
        return await problem_of(db)

    async def ready() -> str | None:
        return await healthy() or presence.problem()

    server = HealthServer(healthy, ready)
    await server.listen(*place)
    return server
