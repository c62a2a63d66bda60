"""The verbs of console sessions. They change no guest: a session lives as long as somebody asks about it."""

from __future__ import annotations

from cumulet.host.consoles import UNHEARD_SECONDS
from cumulet.host.driver import Printed
from cumulet.host.messages import OnHost, Question


class OpenConsole(Question[None], frozen=True, tag="open-console"):
    server_id: str
    session: str

    async def do(self, host: OnHost) -> None:
        await host.driver.open_console(self.server_id, self.session)


class OpenScreen(Question[None], frozen=True, tag="open-screen"):
    server_id: str
    session: str

    async def do(self, host: OnHost) -> None:
        await host.driver.open_screen(self.server_id, self.session)


class ReadConsole(Question[Printed], frozen=True, tag="read-console"):
    server_id: str
    session: str
    position: int
    wait_seconds: float

    async def do(self, host: OnHost) -> Printed:
        wait = min(self.wait_seconds, UNHEARD_SECONDS / 2)
        return await host.driver.read_console(self.server_id, self.session, position=self.position, wait_seconds=wait)


class WriteConsole(Question[None], frozen=True, tag="write-console"):
    server_id: str
    session: str
    position: int
    data: bytes

    async def do(self, host: OnHost) -> None:
        await host.driver.write_console(self.server_id, self.session, position=self.position, data=self.data)


class CloseConsole(Question[None], frozen=True, tag="close-console"):
    server_id: str
    session: str

    async def do(self, host: OnHost) -> None:
        await host.driver.close_console(self.server_id, self.session)
