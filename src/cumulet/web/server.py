"""The HTTPS listener: uvicorn inside our own event loop, TLS 1.2 or newer, bounds on connections and slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from cumulet.web.connections import CONNECTION, Connection, Connections, Link
from cumulet.web.doors import LARGEST_MESSAGE
from cumulet.web.peer import peer_of
from cumulet.web.turns import Turns

log = logging.getLogger(__name__)
_websocket_log = logging.getLogger("cumulet.web.websockets")
_websocket_log.setLevel(logging.WARNING)

HANDSHAKE_SECONDS = 5.0
"""How long a client may take for the TLS handshake."""
LARGEST_HEAD = 65_536
"""Bytes of a request line and its headers (tokens may be large)."""
HEAD_SECONDS = 20.0
"""How long a client may take to send them; also how long a connection may idle before its first request."""
IDLE_SECONDS = 75
STALLED_SECONDS = 60.0
"""How long a client may take nothing of an answer that waits to be sent."""
TLS_BUFFER = 65_536
"""Bytes that each connection has for what it reads; Python's own choice is four times that."""
ACCEPT_PAUSE_SECONDS = 0.1
"""Before accepting again where the system could not."""
GATHERED = 65_536
"""Bytes of an answer that are held back, within one turn of the event loop, to be sent at once."""
STOP_SECONDS = 5

AsgiApp = Callable[
    [
        MutableMapping[str, object],
        Callable[[], Awaitable[MutableMapping[str, object]]],
        Callable[[MutableMapping[str, object]], Awaitable[None]],
    ],
    Awaitable[None],
]


class AddressTaken(Exception):
    """The address to listen on is in use or not ours."""


class Server:
    """A running listener."""

    def __init__(self, inner: _Uvicorn, task: asyncio.Task[None], listener: socket.socket) -> None:
        self._inner = inner
        self._task = task
        self.tls = cast("ssl.SSLContext", inner.config.ssl)
        self.address: str = listener.getsockname()[0]
        self.port: int = listener.getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, finish what runs (for a few seconds), close. Again is nothing."""
        self._inner.should_exit = True
        self._inner.close_idle()
        await self._task


async def serve(
    app: AsgiApp,
    *,
    address: str,
    port: int,
    certificate: Path,
    key: Path,
    connections: int = 1000,
    connections_per_address: int = 200,
    listening: socket.socket | None = None,
    turns: Turns | None = None,
) -> Server:
    """Listen on `address`:`port` (0: any free one) with TLS; raises AddressTaken where that cannot be had.

    `listening`: what does so already. `turns`: those of `app`'s requests, among which handshakes have theirs.
    """
    context = tls_context(certificate, key)
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    listener = listening or listen(address, port)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws=_WebSocket,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # Its size is known only when it is unpacked: a thousand times what was sent.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    config.load()
    config.ssl = context
    inner = _Uvicorn(config)
    inner.turns = turns or Turns()
    inner.admitted = Connections(most=connections, most_of_one=connections_per_address)
    task = asyncio.get_running_loop().create_task(inner.serve(sockets=[listener]), name="https-server")
    inner.ready = asyncio.get_running_loop().create_future()
    done, _ = await asyncio.wait({task, inner.ready}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        task.result()
        raise RuntimeError("the HTTPS server ended while it was starting")
    return Server(inner, task, listener)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def listen(address: str, port: int) -> socket.socket:
    """A socket for `serve`. Raises AddressTaken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressTaken(f"{address}:{port} is taken by another program") from None
        raise AddressTaken(f"cannot listen on {address}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: the program has its own."""

    ready: asyncio.Future[None]
    admitted: Connections
    turns: Turns
    _accepting: asyncio.Task[None] | None = None
    _greetings: set[asyncio.Task[None]]

    def close_idle(self) -> None:
        """Drop connections that wait for a next request: a TLS farewell would wait for clients that are elsewhere."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Protocol) and (connection.cycle is None or connection.cycle.response_complete):
                # Before Python 3.11.3 that is an error for a TLS transport that was closed twice. It is ending already.
                with contextlib.suppress(AttributeError):
                    connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # Accepting is our own.
        self._greetings = set()
        assert sockets is not None
        self._accepting = asyncio.create_task(self._accept(sockets[0]), name="https-accept")
        self.ready.set_result(None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in (self._accepting, *self._greetings):
            if task is not None:
                task.cancel()
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0)  # One in a pass: where many clients wait, the event loop does other work in between.
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("cannot accept connections: %s", error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            connection = self.admitted.admit(peer_of(address[0]), accepted.close)
            if connection is None:
                log.warning("refused a connection: too many are being served", extra={"client": address[0]})
                accepted.close()
                continue
            task = loop.create_task(self._greet(accepted, connection))
            connection.drop = task.cancel
            self._greetings.add(task)
            task.add_done_callback(self._greetings.discard)

    async def _greet(self, accepted: socket.socket, connection: Connection) -> None:
        """The TLS handshake, once its first bytes have come and its address has a turn; then the protocol gets it."""
        try:
            await _readable(accepted)
            await self.turns.take(f"address {connection.share.peer}")
        except BaseException as error:
            accepted.close()
            self.admitted.gone(connection)
            if isinstance(error, TimeoutError):
                return
            raise
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                functools.partial(_Protocol, self, connection),
                accepted,
                ssl=self.config.ssl,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError as error:
            log.debug("no handshake: %s", error)
            self.admitted.gone(connection)
        except BaseException:
            self.admitted.gone(connection)
            raise


async def _readable(accepted: socket.socket) -> None:
    """Wait until something has come: a silent client costs a socket, but no memory for TLS."""
    loop = asyncio.get_running_loop()
    come: asyncio.Future[None] = loop.create_future()

    def has_come() -> None:
        if not come.done():
            come.set_result(None)

    loop.add_reader(accepted, has_come)
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await come
    finally:
        loop.remove_reader(accepted)


class _Gathering:
    """A transport that gathers what is written in one turn of the event loop: head and body go out in one segment."""

    __slots__ = ("_inner", "_loop", "_pieces", "_size")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
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

    def close(self) -> None:
        self.flush()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _WebSocket(WSProtocol):
    """uvicorn's, whose connection counts as any other, and whose path is not logged: its query may hold a secret."""

    def __init__(self, admitted: Connections, connection: Connection, **named: Any) -> None:
        super().__init__(**named)
        self.logger = _websocket_log
        self._admitted = admitted
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        self._admitted.gone(self._connection)
        super().connection_lost(exc)


class _Protocol(HttpToolsProtocol):
    """Closes connections whose request head is too large or too slow, or that take no answer; httptools bounds none."""

    _chunk_bytes = 0
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _stalled_timer: asyncio.TimerHandle | None = None
    _in_head = True

    def __init__(self, server: _Uvicorn, connection: Connection) -> None:
        super().__init__(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)
        self.access_log = False  # Ours is `web.app`'s, which leaves the query out, whatever others make of the loggers.
        self._admitted = server.admitted
        self._connection = connection
        self._link = Link(server.admitted, connection)
        self.ws_protocol_class = functools.partial(_WebSocket, server.admitted, connection)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connection.drop = transport.abort
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        self.resume_writing()
        self._admitted.gone(self._connection)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._head_done()
        self._admitted.serve(self._connection, known=True)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled_timer is None:
            self._stalled_timer = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._in_head or not self.cycle.response_complete:
            self._admitted.hold(self._connection, len(data))
            if self.transport.is_closing():
                return
        before = self._head_bytes if self._in_head else 0
        self._chunk_bytes = len(data)
        super().data_received(data)
        if self._in_head:
            self._head_bytes = before + len(data)
            if self._head_bytes > LARGEST_HEAD:
                self._refuse_head()
            elif self._head_timer is None:
                self._await_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[CONNECTION] = self._link

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is not None and not self.cycle.response_complete:  # There is none before a WebSocket.
            self._admitted.serve(self._connection, known=self._connection.known)

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # All is there: it need not wait for the next pass.
        super().on_response_complete()
        if self.cycle.response_complete:
            self._admitted.rest(self._connection)

    def on_headers_complete(self) -> None:
        # A head that came in one piece was not counted yet; few are so large that it must be.
        if self._head_bytes + self._chunk_bytes > LARGEST_HEAD:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > LARGEST_HEAD:
                raise ValueError("the request's head is too large")
        self._head_done()
        super().on_headers_complete()

    def _refuse_head(self) -> None:
        answer = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(answer)
        self.transport.close()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_done(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head and self.transport is not None:
            self.transport.close()
