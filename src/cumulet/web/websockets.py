"""A WebSocket at the front door: uvicorn's protocol, bounded for slow and hostile clients."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import uvicorn
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from uvicorn.server import ServerState
from wsproto.events import Ping

from cumulet.web.connections import Connection, Connections
from cumulet.web.doors import LARGEST_MESSAGE
from cumulet.web.transport import STALLED_SECONDS, Gathering, end_for_our_error

_log = logging.getLogger("cumulet.web.websockets")
_log.setLevel(logging.WARNING)
AT_ONCE = 4096
"""Bytes that are read in one turn of the event loop: some 700 of the smallest frames, 3 ms."""


class WebSocketConnection(WSProtocol):
    """uvicorn's, whose connection counts as any other, and whose path is not logged: its query may hold a secret."""

    _stalled_timer: asyncio.TimerHandle | None = None
    _ping: Ping | None = None
    """What waits for its pong until the client takes what was sent."""
    _unheard = 0
    """Bytes that came before it was accepted, or after it was closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        *,
        admitted: Connections,
        connection: Connection,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.logger = _log
        self._admitted = admitted
        self._connection = connection
        self._left = bytearray()
        """What has come and was not read yet."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._going_on()
        self._admitted.gone(self._connection)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled_timer is None:
            self._stalled_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._going_on()
        super().resume_writing()
        ping, self._ping = self._ping, None
        if ping is not None and not self.close_sent:
            self.handle_ping(ping)

    def handle_ping(self, event: Ping) -> None:
        """Of those that came while the client took nothing only the last one is answered (RFC 6455, 5.5.3)."""
        if not self.writable.is_set():
            self._ping = event
        elif not self.transport.is_closing():
            super().handle_ping(event)

    def _going_on(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def begin(self, transport: asyncio.Transport, head: bytes) -> None:
        """Raises UnicodeError if the head has names in it that are none."""
        self.connection_made(transport)
        try:
            super().data_received(head)
        except BaseException:
            self.connections.discard(self)
            raise

    def data_received(self, data: bytes) -> None:
        self._left += data
        if len(self._left) == len(data):  # Else a piece of what came before is next.
            self._read_piece()

    def _read_piece(self) -> None:
        """Others are served between two pieces, and no more is taken from the client."""
        transport = cast("Gathering", self.transport)
        piece = bytes(self._left[:AT_ONCE])
        del self._left[:AT_ONCE]
        self._read(piece)
        if transport.is_closing():
            self._left.clear()
        elif self._left:
            transport.full = True
            transport.pause_reading()
            self.loop.call_soon(self._read_piece)
        elif transport.full:
            transport.full = False
            if not self.read_paused:
                transport.resume_reading()

    def _read(self, piece: bytes) -> None:
        if self.close_sent or not self.handshake_complete:
            self._unheard += len(piece)
            if self._unheard > LARGEST_MESSAGE:
                self.transport.abort()
        if self.transport.is_closing():
            return
        try:
            super().data_received(piece)
        except Exception:
            end_for_our_error(self.transport)
