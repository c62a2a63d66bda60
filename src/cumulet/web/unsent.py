"""How answers are sent, and how much of them may wait in memory for clients that take them slowly, or not at all.

A client that takes nothing is cut off after `STALLED_SECONDS` (`web.server`). Until then its answer is kept whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from cumulet.errors import TooManyRequests, Unavailable
from cumulet.web.answers import Answer
from cumulet.web.asgi import Send

AT_ONCE = 65_536
"""Bytes of an answer that are sent, and encrypted, in one turn."""
UNSENT_OF_ONE = 64 << 20
"""Bytes of answers that may wait for one caller: a project, a user, or an address without a token."""
UNSENT = 256 << 20
"""The same for all callers of a process together."""
_AGAIN = {"Retry-After": "1"}


class Unsent:
    """What waits to be sent, by the lanes of callers. Answers of at most `AT_ONCE` bytes always have room."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()
        self._all = 0

    def take(self, lane: str, answer: Answer) -> int:
        """Room for an answer, until it is given back; returns its size. 429 or 503 if there is none.

        The only answer of a caller has room, however long it is.
        """
        body = answer[2]
        if not isinstance(body, bytes) or len(body) <= AT_ONCE:
            return 0
        if self._of[lane] and self._of[lane] + len(body) > UNSENT_OF_ONE:
            raise TooManyRequests("Too much waits to be read by you. Read your other answers first.", headers=_AGAIN)
        if self._all and self._all + len(body) > UNSENT:
            raise Unavailable("Too much waits to be read. Try again soon.", headers=_AGAIN)
        self._of[lane] += len(body)
        self._all += len(body)
        return len(body)

    def give(self, lane: str, size: int) -> None:
        """An answer is sent, or its client has gone."""
        if not size:
            return
        self._all -= size
        self._of[lane] -= size
        if not self._of[lane]:
            del self._of[lane]


async def send_whole(send: Send, body: bytes, next_turn: Callable[[], Awaitable[None]]) -> None:
    """A body that is whole, in pieces with a turn for each."""
    begin = 0
    while len(body) - begin > AT_ONCE:
        piece = body[begin : begin + AT_ONCE]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        begin += AT_ONCE
        await next_turn()
    await send({"type": "http.response.body", "body": body[begin:] if begin else body})


async def send_pieces(send: Send, pieces: AsyncIterator[bytes], next_turn: Callable[[], Awaitable[None]]) -> None:
    """A body that comes in pieces."""
    async for piece in pieces:
        await next_turn()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
