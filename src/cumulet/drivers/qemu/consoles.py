"""Sessions on a guest's serial line. While there are some, QEMU's end of the line is a socket; otherwise it is a ring.

The agent makes both ends of the socket and hands one to QEMU over its monitor: nothing listens. It writes what the
guest prints to the console's log, as it does with the ring's content, and gives each session a copy. If the agent dies,
QEMU drops what the guest prints until the next agent has given it the ring again (`restore`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from cumulet.drivers.qemu import sockets
from cumulet.drivers.qemu.command_line import CONSOLE_CHARDEV, CONSOLE_RING_BYTES
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.hypervisor import Hypervisor, append_bounded
from cumulet.host.consoles import Session, Sessions
from cumulet.host.driver import DriverError, Printed

ENDED = "the guest has stopped, or is on another host"
TYPING_SECONDS = 5.0
"""How long a guest may take no input."""
_LOOK_SECONDS = 15.0
"""How often it looks whether anybody still reads."""
_SOCKET = "console-line"


@dataclass(slots=True, kw_only=True)
class Line:
    """A serial line whose end in QEMU is a socket now."""

    hypervisor: Hypervisor
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sessions: Sessions = field(default_factory=Sessions)
    over: bool = False
    """QEMU's end is closed."""


class Consoles:
    """Those of one host's guests."""

    def __init__(self, host: QemuHost) -> None:
        self._host = host
        self._lines: dict[str, Line] = {}

    async def open(self, server_id: str, session: str) -> None:
        async with self._host.lock(server_id):
            line = self._lines.get(server_id)
            if line is None or line.over:
                hypervisor = self._host.running_hypervisor(server_id)
                line = self._lines[server_id] = await self._connect(server_id, hypervisor)
                self._host.start_task(server_id, "console", self._carry(server_id, line))
            line.sessions.open(session, _now())

    async def read(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        return await self._session(server_id, session).read(position, wait_seconds)

    async def write(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        new = self._session(server_id, session).fresh(position, data)
        line = self._lines[server_id]
        line.writer.write(new)
        try:
            async with asyncio.timeout(TYPING_SECONDS):
                await line.writer.drain()
        except (TimeoutError, ConnectionError) as problem:
            raise DriverError("NOT_HEARD: the guest does not take what is typed") from problem

    async def close(self, server_id: str, session: str) -> None:
        line = self._lines.get(server_id)
        if line is not None:
            line.sessions.close(session)
            if not line.sessions:
                await self._hang_up(server_id, line)

    async def end(self) -> None:
        """The agent goes: every line is a ring again, so that nothing of what is printed then is lost."""
        for server_id, line in list(self._lines.items()):
            await self._hang_up(server_id, line)

    def _session(self, server_id: str, name: str) -> Session:
        line = self._lines.get(server_id)
        if line is None:
            raise DriverError("NO_SESSION: this console session has ended")
        return line.sessions.get(name, _now())

    async def _connect(self, server_id: str, hypervisor: Hypervisor) -> Line:
        await hypervisor.drain_console(self._host.folder(server_id).console)

        async def become_the_line() -> None:
            await hypervisor.chardev_to_socket(CONSOLE_CHARDEV, _SOCKET)
            hypervisor.on_socket = True

        reader, writer = await sockets.paired(hypervisor, _SOCKET, become_the_line)
        return Line(hypervisor=hypervisor, reader=reader, writer=writer)

    async def _carry(self, server_id: str, line: Line) -> None:
        """Until QEMU's end is closed: it has ended, or has its ring again."""
        log = self._host.folder(server_id).console
        waiting: asyncio.Task[bytes] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(line.reader.read(65536))
                done, _ = await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
                if not done:
                    line.sessions.forget_unheard(_now())
                    if not line.sessions:
                        await self._hang_up(server_id, line)
                    continue
                data, waiting = waiting.result(), None
                if not data:
                    return
                with contextlib.suppress(OSError):  # A full disk keeps nothing of it, and ends no session.
                    if log.parent.exists():
                        append_bounded(log, data)
                line.sessions.print(data)
        except ConnectionError:
            return
        finally:
            line.over = True
            if waiting is not None:
                waiting.cancel()
            line.sessions.end(ENDED)
            line.writer.close()
            if not line.sessions:
                self._forget(server_id, line)

    async def _hang_up(self, server_id: str, line: Line) -> None:
        self._forget(server_id, line)
        with contextlib.suppress(DriverError):  # A QEMU that is gone has no line.
            await restore(line.hypervisor)

    def _forget(self, server_id: str, line: Line) -> None:
        if self._lines.get(server_id) is line:
            del self._lines[server_id]


async def restore(hypervisor: Hypervisor) -> None:
    """Give the console its ring, unless it has it."""
    if not await hypervisor.chardev_is_ring(CONSOLE_CHARDEV):
        await hypervisor.chardev_to_ring(CONSOLE_CHARDEV, CONSOLE_RING_BYTES)
    hypervisor.on_socket = False


def _now() -> float:
    return asyncio.get_running_loop().time()
