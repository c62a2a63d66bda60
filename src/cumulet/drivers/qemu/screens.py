"""Sessions at a guest's screen: each is a client of the VNC server in its QEMU, which listens nowhere.

The agent makes a pair of sockets for each session, hands one end to QEMU over its monitor, and passes bytes between the
other end and the session's reader. It reads no faster than the reader does. QEMU then skips pictures that are out of
date. The session ends with either end or with the agent, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

from cumulet.drivers.qemu import sockets
from cumulet.drivers.qemu.consoles import ENDED, TYPING_SECONDS
from cumulet.drivers.qemu.host import QemuHost
from cumulet.host.consoles import CHUNK_BYTES, Session, Sessions
from cumulet.host.driver import DriverError, Printed

_LOOK_SECONDS = 15.0
"""How often it looks whether anybody still reads."""
_SOCKET = "screen-client"


class _Wire(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def close(self) -> None:
        self.writer.close()


@dataclass(slots=True, kw_only=True)
class _Screen:
    """The sessions of one guest, and each one's connection to QEMU."""

    sessions: Sessions = field(default_factory=Sessions)
    wires: dict[str, _Wire] = field(default_factory=dict)


class Screens:
    """Those of one host's guests."""

    def __init__(self, host: QemuHost) -> None:
        self._host = host
        self._screens: dict[str, _Screen] = {}

    def has(self, server_id: str, session: str) -> bool:
        screen = self._screens.get(server_id)
        return screen is not None and session in screen.sessions

    async def open(self, server_id: str, session: str) -> None:
        async with self._host.lock(server_id):
            self._forget_unheard()
            if self.has(server_id, session):
                return
            if not self._host.record(server_id).guest.screen:
                raise DriverError("NO_SCREEN: the guest has none")
            hypervisor = self._host.running_hypervisor(server_id)
            screen = self._screens.setdefault(server_id, _Screen())
            opened = screen.sessions.open(session, _now())
            try:
                client = functools.partial(hypervisor.add_screen_client, _SOCKET)
                wire = screen.wires[session] = _Wire(*await sockets.paired(hypervisor, _SOCKET, client))
            except BaseException:
                self._forget(server_id, session)
                raise
            self._host.start_task(server_id, f"screen {session}", self._carry(server_id, session, opened, wire))

    async def read(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        return await self._screens[server_id].sessions.get(session, _now()).read(position, wait_seconds)

    async def write(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        screen = self._screens[server_id]
        new = screen.sessions.get(session, _now()).fresh(position, data)
        wire = screen.wires[session].writer
        wire.write(new)
        try:
            async with asyncio.timeout(TYPING_SECONDS):
                await wire.drain()
        except (TimeoutError, ConnectionError) as problem:
            raise DriverError("NOT_HEARD: the guest's screen does not take input") from problem

    async def close(self, server_id: str, session: str) -> None:
        self._forget(server_id, session)
        await self._host.stop_task(server_id, f"screen {session}")

    async def _carry(self, server_id: str, name: str, session: Session, wire: _Wire) -> None:
        """Pass bytes on until QEMU closes its end, or nobody has read for long."""
        carried = asyncio.create_task(_take(session, wire.reader))
        try:
            while not carried.done() and self.has(server_id, name):
                await asyncio.wait({carried}, timeout=_LOOK_SECONDS)
                self._forget_unheard()
        finally:
            carried.cancel()
            session.end(ENDED)
            wire.close()

    def _forget_unheard(self) -> None:
        for server_id, screen in list(self._screens.items()):
            for session in screen.sessions.unheard(_now()):
                self._forget(server_id, session)

    def _forget(self, server_id: str, session: str) -> None:
        screen = self._screens.get(server_id)
        if screen is None:
            return
        screen.sessions.close(session)
        wire = screen.wires.pop(session, None)
        if wire is not None:
            wire.close()
        if not screen.sessions:
            del self._screens[server_id]


async def _take(session: Session, reader: asyncio.StreamReader) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            session.print(data)
            await session.room()
    except ConnectionError:
        return


def _now() -> float:
    return asyncio.get_running_loop().time()
