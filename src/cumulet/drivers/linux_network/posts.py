"""The agent's end of the socket by which its responder asks whether passwords of guests are taken.

The responder reads what guests send, so it is not trusted: it may lie about which guest of its own host has posted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from cumulet.drivers.linux_network.responder import LARGEST_POST_BYTES, Post, Taken
from cumulet.host.record import NOT_UNDERSTOOD
from cumulet.host.telling import MOST_PASSWORD_CHARACTERS

log = logging.getLogger(__name__)

MOST_AT_ONCE = 64
MOST_OF_A_SERVER = 2
"""Passwords of one server at once: it keeps one, so a few servers take not all places."""

Take = Callable[[str, str], Awaitable[bool]]
"""Server id and content of a password -> whether it was kept. False: there is one already, or no such guest."""


class Posts:
    """Made and used on the agent's own thread. `server_on`: the server whose guest is on the port of a number."""

    def __init__(self, ours: socket.socket, server_on: Callable[[int], str | None]) -> None:
        self._ours = ours
        self._server_on = server_on
        self.take: Take | None = None
        """None as long as nobody keeps passwords."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: Counter[str] = Counter()
        """By server, of those that post just now."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._hear)

    async def close(self) -> None:
        self._loop.remove_reader(self._ours.fileno())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hear(self) -> None:
        try:
            post = msgspec.json.decode(self._ours.recv(LARGEST_POST_BYTES), type=Post)
        except BlockingIOError:
            return
        except NOT_UNDERSTOOD:
            log.warning("what the responder asks is not understood")
            return
        if len(self._tasks) >= MOST_AT_ONCE or len(post.content) > MOST_PASSWORD_CHARACTERS:
            self._answer(post, None)
            return
        self._tasks.add(task := asyncio.create_task(self._ask(post), name=f"password-{post.number}"))
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, post: Post) -> None:
        done = None
        try:
            server_id = self._server_on(post.number)
            if self.take is not None and server_id is not None and self._asking[server_id] < MOST_OF_A_SERVER:
                self._asking[server_id] += 1
                try:
                    done = await self.take(server_id, post.content)
                finally:
                    self._asking -= Counter((server_id,))  # Without those that have none.
        except Exception:
            log.exception("a guest's password could not be kept")
        self._answer(post, done)

    def _answer(self, post: Post, done: bool | None) -> None:
        try:
            self._ours.send(msgspec.json.encode(Taken(visit=post.visit, done=done)))
        except OSError:  # The guest's connection ends without an answer.
            log.warning("the responder does not read what it has asked")
