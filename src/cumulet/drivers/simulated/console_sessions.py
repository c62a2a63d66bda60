"""The serial console of a simulated guest talks: it echoes, asks who is there, and knows a few commands."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host.consoles import Session, Sessions
from cumulet.host.driver import DriverError, GuestState, Printed

LIVING = (GuestState.RUNNING, GuestState.PAUSED)
ENDED = "the guest has stopped, or is on another host"
LONGEST_LINE = 256
LOOK_SECONDS = 0.5
"""How soon a reader hears that the guest has stopped."""
_HELP = "help, hostname, uptime, exit"


class Terminal:
    """What is on the other end of a line: who has logged in there, and what was typed of a line so far."""

    def __init__(self, found: SimulatedGuest, clock: Clock) -> None:
        self._found = found
        self._clock = clock
        self._user = ""
        self._wants_password = False
        self._line = ""

    def prompt(self) -> str:
        if self._wants_password:
            return "Password: "
        name = self._found.guest.name
        return f"{self._user}@{name}:~$ " if self._user else f"{name} login: "

    def typed(self, data: bytes) -> bytes:
        """What it prints for this."""
        said = ""
        for letter in data.decode("utf-8", "replace"):
            if letter in "\r\n":
                line, self._line = self._line, ""
                said += "\r\n" + self._entered(line.strip()) + self.prompt()
            elif letter in "\x7f\b":
                said += "\b \b" if self._line and not self._wants_password else ""
                self._line = self._line[:-1]
            elif letter.isprintable() and len(self._line) < LONGEST_LINE:
                self._line += letter
                said += "" if self._wants_password else letter
        return said.encode()

    def _entered(self, line: str) -> str:
        if self._wants_password:
            self._wants_password = False
            return ""
        if not self._user:
            self._user, self._wants_password = line, bool(line)
            return ""
        if line == "exit":
            self._user = ""
            return ""
        answers = {
            "": "",
            "help": _HELP,
            "hostname": self._found.guest.name,
            "uptime": f"up {self._found.ran_until(self._clock.now_us()) // 1_000_000} s",
        }
        answer = answers.get(line, f"{line.split(' ')[0]}: not found; there are: {_HELP}")
        return answer + "\r\n" if answer else ""


class SimulatedConsoleSessions:
    """The part of the simulated driver that is about sessions."""

    if TYPE_CHECKING:
        _clock: Clock
        _guests: dict[str, SimulatedGuest]

    @cached_property
    def _lines(self) -> dict[str, tuple[Terminal, Sessions]]:
        return {}

    async def open_console(self, server_id: str, session: str) -> None:
        if not self._lives(server_id):
            raise DriverError("NOT_RUNNING: the guest has no process")
        found = self._guests[server_id]
        terminal, sessions = self._lines.get(server_id, (Terminal(found, self._clock), Sessions()))
        opened = sessions.open(session, self._clock.monotonic())
        self._lines[server_id] = (terminal, sessions)
        opened.print(f"\r\nSimulated guest {found.guest.name}: no real machine runs here.\r\n".encode())
        opened.print(terminal.prompt().encode())

    async def read_console(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        reader = self._session(server_id, session)
        until = self._clock.monotonic() + wait_seconds
        while True:
            if not self._lives(server_id):
                reader.end(ENDED)
            left = until - self._clock.monotonic()
            printed = await reader.read(position, min(LOOK_SECONDS, max(left, 0.0)))
            if printed.data or printed.ended or left <= 0:
                return printed

    async def write_console(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        new = self._session(server_id, session).fresh(position, data)
        terminal, sessions = self._lines[server_id]
        found = self._guests.get(server_id)
        if found is not None and found.state is GuestState.RUNNING:  # One that stands still hears nothing.
            sessions.print(terminal.typed(new))

    async def close_console(self, server_id: str, session: str) -> None:
        if server_id in self._lines:
            self._lines[server_id][1].close(session)

    def _lives(self, server_id: str) -> bool:
        found = self._guests.get(server_id)
        return found is not None and found.state in LIVING

    def _session(self, server_id: str, name: str) -> Session:
        line = self._lines.get(server_id)
        if line is None:
            raise DriverError("NO_SESSION: this console session has ended")
        return line[1].get(name, self._clock.monotonic())
