"""The HTTPS listener: uvicorn inside our own event loop, TLS 1.2 or newer, bounds on headers and on slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 65_536
"""Bytes of a request line and its headers (tokens may be large)."""
HEAD_SECONDS = 20.0
"""How long a client may take to send them; also how long a connection may idle before its first request."""
IDLE_SECONDS = 75
STOP_SECONDS = 5

AsgiApp = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
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
        self.address: str = listener.getsockname()[0]
        self.port: int = listener.getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, finish what runs (for a few seconds), close."""
        self._inner.should_exit = True
        await self._task


async def serve(app: AsgiApp, *, address: str, port: int, certificate: Path, key: Path) -> Server:
    """Listen on `address`:`port` (0: any free one) with TLS; raises AddressTaken where that cannot be had."""
    context = tls_context(certificate, key)
    listener = _listen(address, port)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
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


def _listen(address: str, port: int) -> socket.socket:
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

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set_result(None)


class _Protocol(HttpToolsProtocol):
    """Closes connections whose request head is too large or too slow; httptools bounds neither."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD and self._is_still_head(data):
                return
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)

    def _is_still_head(self, data: bytes) -> bool:
        """Feed large first data in; refuse if the head had no end within the bound."""
        head_end = data.find(b"\r\n\r\n")
        if head_end >= 0 and self._head_bytes - len(data) + head_end <= LARGEST_HEAD:
            return False
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
        self.transport.close()
        return True

    def on_headers_complete(self) -> None:
        self._head_done()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head, self._head_bytes = True, 0

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_done(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._in_head and self.transport is not None:
            self.transport.close()
