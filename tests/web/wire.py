"""A connection of the front door, with the real protocols, on a transport that only notes what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import uvicorn

from cumulet.web.asgi import Receive, Scope, Send
from cumulet.web.connections import Connections
from cumulet.web.protocols import HttpConnection
from cumulet.web.websockets import WebSocketConnection

App = Callable[[Scope, Receive, Send], Awaitable[None]]
HEAD = b"POST /x HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
SHORT = HEAD + b"content-length: 2\r\n\r\n{}"
UPGRADE = (
    b"GET /console/x HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n"
)
ASK_FOR_SOCKET = UPGRADE + b"host: x\r\n\r\n"


class Wire(asyncio.Transport):
    """A client's end: what was sent to it, and whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.ended = False
        self.over = asyncio.Event()
        self.aborted = False
        self.reading = True
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.over.set()
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(lambda: self.protocol.connection_lost(None))  # type: ignore[union-attr]

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Door:
    """A front door with one connection."""

    def __init__(self, app: App) -> None:
        config = uvicorn.Config(app, ws=WebSocketConnection, lifespan="off", log_config=None, access_log=False)
        config.load()
        self.server = uvicorn.Server(config)
        self.server.lifespan = config.lifespan_class(config)
        self.admitted = Connections(most=10, most_of_one=10)
        self.wire = Wire()
        connection = self.admitted.admit("192.0.2.1", self.wire.abort)
        assert connection is not None
        self.connection = connection
        self.http = HttpConnection(self.server, self.admitted, connection)
        self.wire.protocol = self.http
        self.http.connection_made(self.wire)

    async def say(self, data: bytes) -> None:
        """One piece from the client, and what the loop then does at once."""
        if not self.wire.ended:
            assert isinstance(self.wire.protocol, asyncio.Protocol)
            self.wire.protocol.data_received(data)
        await passes()

    def socket(self) -> WebSocketConnection:
        """What speaks now, after a request for a WebSocket."""
        assert isinstance(self.wire.protocol, WebSocketConnection)
        return self.wire.protocol

    def is_forgotten(self) -> bool:
        return not self.server.server_state.connections and not self.admitted._count


async def passes() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without the body."""
    await answer(send)


async def after_the_body(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await answer(send)


async def accepts(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await after_the_body(scope, receive, send)
    else:
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass


class Waits:
    """Answers once it may."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.over.wait()
        await answer(send)
