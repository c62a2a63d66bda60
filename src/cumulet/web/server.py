"""The HTTPS listener: uvicorn inside our own event loop, TLS 1.2 or newer, bounds on connections."""

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
from typing import cast

import uvicorn

from cumulet.web.connections import Connection, Connections
from cumulet.web.doors import LARGEST_MESSAGE
from cumulet.web.peer import peer_of
from cumulet.web.protocols import HttpConnection
from cumulet.web.turns import Turns
from cumulet.web.websockets import WebSocketConnection

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 5.0
"""How long a client may take for the TLS handshake."""
IDLE_SECONDS = 75
TLS_BUFFER = 65_536
"""Bytes that each connection has for what it reads; Python's own choice is four times that."""
ACCEPT_PAUSE_SECONDS = 0.1
"""Before accepting again where the system could not."""
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
        http=HttpConnection,
        ws=WebSocketConnection,
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
            if isinstance(connection, HttpConnection) and (
                connection.cycle is None or connection.cycle.response_complete
            ):
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
                functools.partial(HttpConnection, self, self.admitted, connection),
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
