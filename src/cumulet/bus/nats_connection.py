"""A connection of this process to the bus, made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger(__name__)

SERVER_NAME = "bus.cumulet"
"""The name in the certificate of every NATS server of a cloud, whatever its address."""
CONNECT_SECONDS = 5
RECONNECT_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 2.0
"""Between attempts to connect, which double."""
PING_SECONDS = 5
LOOK_SECONDS = 0.25
"""So often it is looked at whether the connection is still there."""


class NatsConnection:
    """A connection to one of the servers, and a new one whenever it is lost, until `close`."""

    def __init__(
        self,
        servers: Sequence[str],
        tls: Callable[[], ssl.SSLContext],
        *,
        name: str,
        subscribe: Callable[[Client], Awaitable[None]],
        lost: Callable[[], None],
        ping_seconds: int = PING_SECONDS,
    ) -> None:
        """`subscribe`: makes the subscriptions of a new connection; `lost`: called when a connection has ended."""
        self._ping_seconds = ping_seconds
        self._servers = list(servers)
        self._tls = tls
        self._name = name
        self._subscribe = subscribe
        self._lost = lost
        self._client: Client | None = None
        self._lost_at: float | None = time.monotonic()
        self._keeping: asyncio.Task[None] | None = None
        self._new = asyncio.Event()

    @property
    def client(self) -> Client | None:
        """None while there is no connection."""
        client = self._client
        return client if client is not None and client.is_connected else None

    @property
    def lost_seconds(self) -> float | None:
        if self.client is not None:
            return None
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        return time.monotonic() - self._lost_at

    async def made(self) -> None:
        """Wait until there is a connection. The last one may have ended a moment before anybody was told."""
        while self.client is None:
            self._new.clear()
            await self._new.wait()

    async def move_to(self, servers: Sequence[str]) -> None:
        """Connect to these servers instead. A connection to one of those before, and an attempt at one, is ended: the
        library goes on trying for two minutes."""
        if list(servers) == self._servers:
            return
        log.warning("the bus is at %s now, no longer at %s", ", ".join(servers), ", ".join(self._servers))
        self._servers = list(servers)
        await self.close()
        self.start()

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep(), name="bus-connection")

    async def _keep(self) -> None:
        from nats.aio.client import Client  # 50 ms that a cloud of one machine need not spend

        told, pause = "", RECONNECT_SECONDS
        while True:
            client, closed = Client(), asyncio.Event()

            async def ended(closed: asyncio.Event = closed) -> None:
                closed.set()

            try:
                await client.connect(
                    self._servers,
                    tls=self._tls(),
                    tls_hostname=SERVER_NAME,
                    name=self._name,
                    allow_reconnect=False,
                    connect_timeout=CONNECT_SECONDS,
                    ping_interval=self._ping_seconds,
                    error_cb=_said,
                    closed_cb=ended,
                )
                await self._subscribe(client)
                for _ in range(2):  # The library's first PING may overtake what it has yet to write.
                    await client.flush()
                told, pause, self._client, self._lost_at = "", RECONNECT_SECONDS, client, None
                self._new.set()
                await _closed(client, closed)
                log.warning("the connection to the bus was lost")
            except Exception as error:
                if repr(error) != told:
                    log.warning("the bus cannot be reached: %r", error)
                told, pause = repr(error), min(2 * pause, LONGEST_PAUSE_SECONDS)
            finally:
                self._client = None
                self._lost_at = self._lost_at or time.monotonic()
                self._lost()
                await _let_go(client)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        keeping = self._keeping
        while keeping is not None and not keeping.done():
            keeping.cancel()  # The library may take it for a cancellation of its own, and forget it.
            await asyncio.wait((keeping,), timeout=LOOK_SECONDS)


async def _closed(client: Client, told: asyncio.Event) -> None:
    """Wait until the connection has ended. The library does not tell us when it had something left to write and could
    not (nats-py 2.16, `Client._close`), so it is looked at as well."""
    while not told.is_set() and not client.is_closed:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await told.wait()


async def _let_go(client: Client) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.close()
    with contextlib.suppress(Exception):
        if client._transport is not None:  # `close` leaves it open where it has failed before.
            client._transport.close()  # type: ignore[no-untyped-call]


async def _said(error: Exception) -> None:
    log.info("the bus says: %r", error)
