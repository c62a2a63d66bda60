"""The way to a guest's console: a page with a terminal or a screen, and the WebSocket that relays its bytes.

The relay asks the host's agent for output over the bus and passes it to the client's WebSocket; the host does not
listen. A session ends with the client, with the guest, with the guest's move, or after long silence.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from starlette.websockets import WebSocket, WebSocketState

from cumulet.compute.consoles import DOOR, SERIAL, VNC, Ticket, has_console, redeem
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import get_server
from cumulet.errors import NotFound
from cumulet.host import messages as m
from cumulet.host.console_messages import CloseConsole, OpenConsole, OpenScreen, ReadConsole, WriteConsole
from cumulet.host.consoles import CHUNK_BYTES, SESSIONS_OF_ONE
from cumulet.web.answers import Answer
from cumulet.web.context import Cloud
from cumulet.web.doors import page_headers

SESSIONS = 100
"""The most sessions of one API process at once."""
SESSIONS_OF_A_USER = 8
IDLE_SECONDS = 1800.0
"""A session without input and output for this long ends."""
WAIT_SECONDS = 20.0
"""How long a host waits for output before it answers that there is none."""
ENDED, REFUSED, FULL = 4000, 4403, 4429
"""Codes with which a WebSocket is closed (RFC 6455 leaves these to applications), beside a reason in words."""
BAD_LINK = "This address was used already, has run out after a minute, or its server has changed: ask for a new one."

_OPEN = {SERIAL: OpenConsole, VNC: OpenScreen}
"""By protocol: the verb that begins a session."""

_FOLDER = Path(__file__).with_name("console_pages")
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_POLICIES: Mapping[str, Mapping[str, str]] = {
    # The terminal sets its sizes in a style sheet that it writes itself.
    "serial": page_headers(styles="'self' 'unsafe-inline'"),
    # The pointer and the pictures of a guest are `data:` URLs.
    "vnc": page_headers(images="'self' data:"),
}


class ConsoleDoor:
    """`web.doors.Door` of consoles, with the sessions of this process."""

    def __init__(self) -> None:
        self._of_server: Counter[str] = Counter()
        self._of_user: Counter[str] = Counter()

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return self._of_server.total()

    def page(self, path: str) -> Answer | None:
        return _pages().get(path)

    async def talk(self, cloud: Cloud, path: str, socket: WebSocket) -> None:
        await socket.accept("binary" if "binary" in socket.scope.get("subprotocols", ()) else None)
        token = socket.query_params.get("token", "") if path in _OPEN else ""
        ticket = await cloud.db.write_async(lambda tx: redeem(tx, token, cloud.clock.now_us(), path)) if token else None
        if ticket is None:
            await socket.close(REFUSED, BAD_LINK)
            return
        server_id = ticket.server.id
        if (
            self.sessions >= SESSIONS
            or self._of_server[server_id] >= SESSIONS_OF_ONE
            or self._of_user[ticket.user_id] >= SESSIONS_OF_A_USER
        ):
            await socket.close(FULL, "Too many consoles are open: close one.")
            return
        self._of_server[server_id] += 1
        self._of_user[ticket.user_id] += 1
        try:
            why = await Relay(cloud, ticket, socket, path).run()
        finally:
            self._of_server -= Counter([server_id])
            self._of_user -= Counter([ticket.user_id])
        if socket.client_state is WebSocketState.CONNECTED and socket.application_state is WebSocketState.CONNECTED:
            await socket.close(ENDED, why)


class Relay:
    """One session: it passes bytes in both directions."""

    def __init__(self, cloud: Cloud, ticket: Ticket, socket: WebSocket, protocol: str) -> None:
        self._cloud = cloud
        self._protocol = protocol
        self._server = ticket.server
        self._host = ticket.server.host or ""
        self._socket = socket
        self._session = cloud.clock.uuid()
        self._said_at = 0.0

    async def run(self) -> str:
        """Run until the session is over; the reason."""
        self._heard()
        session = {"server_id": self._server.id, "session": self._session}
        try:
            await self._cloud.hosts.send(self._host, _OPEN[self._protocol](**session), seconds=WAIT_SECONDS)
        except m.HostError:
            return await self._why()
        directions: list[asyncio.Task[str]] = []
        try:
            if not await self._is_as_it_was():
                return await self._why()
            directions += (asyncio.create_task(self._print()), asyncio.create_task(self._type()))
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            with contextlib.suppress(m.HostError):  # The host forgets a session that is not read.
                await self._cloud.hosts.send(self._host, CloseConsole(**session))

    async def _is_as_it_was(self) -> bool:
        """Whether no operation has begun on the server since its address was used.

        Only then the opened session is of the guest that the address is for: the verb that opens it has no generation.
        """
        try:
            server = await self._cloud.db.read_async(lambda tx: get_server(tx, self._server.id))
        except NotFound:
            return False
        return server.generation == self._server.generation

    async def _print(self) -> str:
        position = 0
        while True:
            question = ReadConsole(
                server_id=self._server.id, session=self._session, position=position, wait_seconds=WAIT_SECONDS
            )
            try:
                printed = await self._cloud.hosts.send(self._host, question, seconds=2 * WAIT_SECONDS)
            except m.HostError:
                return await self._why()
            if printed.position > position and position and self._protocol == SERIAL:
                await self._socket.send_bytes(b"\r\n[printed faster than it could be shown: some is left out]\r\n")
            if printed.data:
                self._heard()
                await self._socket.send_bytes(printed.data)
            position = printed.position + len(printed.data)
            if printed.ended is not None:
                return await self._why()
            if self._now() - self._said_at > IDLE_SECONDS:
                return "Nobody has said anything for half an hour."

    async def _type(self) -> str:
        position = 0
        while True:
            message = await self._socket.receive()
            if message["type"] != "websocket.receive":
                return "closed"
            data: bytes = message.get("bytes") or (message.get("text") or "").encode()
            self._heard()
            for start in range(0, len(data), CHUNK_BYTES):
                piece = data[start : start + CHUNK_BYTES]
                question = WriteConsole(server_id=self._server.id, session=self._session, position=position, data=piece)
                try:
                    await self._cloud.hosts.send(self._host, question, seconds=WAIT_SECONDS)
                except m.HostError:
                    return await self._why()
                position += len(piece)

    async def _why(self) -> str:
        """What has happened to the server, in words for its user."""
        try:
            server = await self._cloud.db.read_async(lambda tx: get_server(tx, self._server.id))
        except NotFound:
            return "The server was deleted."
        if server.host != self._host:
            return "The server has moved to another host: ask for a new address."
        if server.task_state is not None:
            return f"The server is {server.task_state}: ask for a new address when that is over."
        if not has_console(server):
            return f"The server is {server.vm_state.value}."
        return "The console has ended: ask for a new address."

    def _heard(self) -> None:
        self._said_at = self._now()

    def _now(self) -> float:
        return self._cloud.clock.monotonic()


@cache
def _pages() -> Mapping[str, Answer]:
    """All pages by their paths. Nothing is kept of other paths that strangers ask for."""
    pages: dict[str, Answer] = {}
    for file in (file for file in _FOLDER.rglob("*") if file.suffix in _KINDS):
        path = str(file.relative_to(_FOLDER)).removesuffix(".html")
        kind = {"content-type": f"{_KINDS[file.suffix]}; charset=utf-8"}
        headers = {**kind, **_POLICIES.get(path, page_headers())}
        pages[path] = 200, [(key.encode(), value.encode()) for key, value in headers.items()], file.read_bytes()
    return pages


COMPUTE.doors[DOOR] = ConsoleDoor()
