"""A WebSocket client: TLS that trusts one authority, bytes in both directions, and the reason for closing."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension

CONNECT_SECONDS = 20.0


class Refused(Exception):
    """There is no WebSocket at this address, or it refuses this client."""


class WebSocketClient:
    """A connected WebSocket, made by `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: WSConnection) -> None:
        self._reader = reader
        self._writer = writer
        self._wire = wire
        self._events: list[Event] = []
        self.closed: str | None = None
        """Why it was closed, in the other side's words; None while it is open."""

    @classmethod
    async def connect(
        cls, url: str, context: ssl.SSLContext, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> WebSocketClient:
        """`url`: ``wss://...``. Raises `Refused`, OSError."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
        wire = WSConnection(ConnectionType.CLIENT)
        made = cls(reader, writer, wire)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        extensions: list[Extension] = []
        wanted = [(name.encode(), value.encode()) for name, value in headers]
        made._send(
            Request(
                host=parts.netloc, target=target, subprotocols=["binary"], extensions=extensions, extra_headers=wanted
            )
        )
        async with asyncio.timeout(CONNECT_SECONDS):
            event = await made._next()
        if isinstance(event, AcceptConnection):
            return made
        writer.close()
        status = event.status_code if isinstance(event, RejectConnection) else None
        raise Refused(f"the console was refused ({status})")

    async def read(self) -> bytes:
        """The next bytes; empty once it is closed."""
        while self.closed is None:
            event = await self._next()
            if isinstance(event, BytesMessage):
                return bytes(event.data)
            if isinstance(event, TextMessage):
                return event.data.encode()
            if isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, CloseConnection):
                self.closed = event.reason or "closed"
                self._send(event.response())
            elif event is None:
                self.closed = "The connection was lost."
        return b""

    def write(self, data: bytes) -> None:
        if self.closed is None:
            self._send(BytesMessage(data=data))

    async def close(self) -> None:
        if self.closed is None:
            self.closed = "closed"
            self._send(CloseConnection(code=1000))
        self._writer.close()

    def _send(self, event: Event) -> None:
        self._writer.write(self._wire.send(event))

    async def _next(self) -> Event | None:
        """The next event; None: the connection has ended."""
        while not self._events:
            data = await self._reader.read(65536)
            if not data:
                return None
            self._wire.receive_data(data)
            self._events = list(self._wire.events())
        return self._events.pop(0)
