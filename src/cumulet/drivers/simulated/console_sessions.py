"""The serial console and the screen of a simulated guest.

The console echoes, asks for a user, and knows a few commands. The screen shows what the guest is and what was typed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.drivers.simulated.screen import COLUMNS, VERSION, Screen
from cumulet.host.consoles import Session, Sessions
from cumulet.host.driver import DriverError, GuestState, Printed

LIVING = (GuestState.RUNNING, GuestState.PAUSED)
ENDED = "the guest has stopped, or is on another host"
LONGEST_LINE = 256
LONGEST_SHOWN = COLUMNS - 8
"""How many of the letters last typed a screen shows."""
LOOK_SECONDS = 0.5
"""How soon a reader learns that the guest has stopped."""
_HELP = "help, hostname, uptime, exit"


class Terminal:
    """The guest's end of a serial line: who has logged in, and what was typed of a line so far."""

    def __init__(self, found: SimulatedGuest, clock: Clock) -> None:
        self.found = found
        self.over = False
        """Whether the guest has ended since."""
        self._clock = clock
        self._user = ""
        self._wants_password = False
        self._line = ""

    def prompt(self) -> str:
        if self._wants_password:
            return "Password: "
        name = self.found.guest.name
        return f"{self._user}@{name}:~$ " if self._user else f"{name} login: "

    def typed(self, data: bytes) -> bytes:
        """What it prints when this is typed."""
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
            "hostname": self.found.guest.name,
            "uptime": f"up {self.found.ran_until(self._clock.now_us()) // 1_000_000} s",
        }
        answer = answers.get(line, f"{line.split(' ')[0]}: not found; there are: {_HELP}")
        return answer + "\r\n" if answer else ""


class SimulatedConsoleSessions:
    """Part of `SimulatedDriver`."""

    if TYPE_CHECKING:
        _clock: Clock
        _guests: dict[str, SimulatedGuest]

    name: str

    @cached_property
    def _screens(self) -> dict[str, tuple[dict[str, Screen], Sessions]]:
        return {}

    @cached_property
    def _typed_at(self) -> dict[str, str]:
        """By server id: what was last typed at its screen, by anybody."""
        return {}

    @cached_property
    def _lines(self) -> dict[str, tuple[Terminal, Sessions]]:
        return {}

    async def open_console(self, server_id: str, session: str) -> None:
        if not self._lives(server_id):
            raise DriverError("NOT_RUNNING: the guest has no process")
        found = self._guests[server_id]
        for gone in [gone for gone in self._lines if self._is_another(gone)]:
            self._lines.pop(gone)[1].end(ENDED)
        terminal, sessions = self._lines.get(server_id, (Terminal(found, self._clock), Sessions()))
        opened = sessions.open(session, self._clock.monotonic())
        self._lines[server_id] = (terminal, sessions)
        opened.print(f"\r\nSimulated guest {found.guest.name}: no real machine runs here.\r\n".encode())
        opened.print(terminal.prompt().encode())

    async def open_screen(self, server_id: str, session: str) -> None:
        if not self._lives(server_id):
            raise DriverError("NOT_RUNNING: the guest has no process")
        screens, sessions = self._screens.setdefault(server_id, ({}, Sessions()))
        opened = sessions.open(session, self._clock.monotonic())
        for left in [left for left in screens if left not in sessions]:
            del screens[left]
        for gone in [gone for gone in self._screens if gone not in self._guests]:
            del self._screens[gone]
            self._typed_at.pop(gone, None)
        if session not in screens:
            name = self._guests[server_id].guest.name
            screens[session] = Screen(name, lambda: self._seen(server_id), lambda key: self._key(server_id, key))
            opened.print(VERSION)

    def _seen(self, server_id: str) -> list[str]:
        found = self._guests.get(server_id)
        if found is None:
            return []
        return [
            "Simulated guest: no real machine runs here",
            "",
            f"Name   {found.guest.name}",
            f"ID     {server_id}",
            f"Host   {self.name}",
            f"State  {found.state.value}",
            f"Up     {found.ran_until(self._clock.now_us()) // 1_000_000} s",
            f"Typed  {self._typed_at.get(server_id, '')}",
        ]

    def _key(self, server_id: str, key: str) -> None:
        found = self._guests.get(server_id)
        if found is not None and found.state is GuestState.RUNNING:  # A paused guest takes no input.
            before = self._typed_at.get(server_id, "")
            self._typed_at[server_id] = before[:-1] if key == "\b" else (before + key)[-LONGEST_SHOWN:]

    async def read_console(self, server_id: str, session: str, *, position: int, wait_seconds: float) -> Printed:
        reader = self._session(server_id, session)
        screen = self._screen(server_id, session)
        until = self._clock.monotonic() + wait_seconds
        while True:
            ended = screen.over if screen is not None else self._is_another(server_id)
            if ended or not self._lives(server_id):
                reader.end(ENDED)
            elif screen is not None and reader.all_before(position):
                reader.print(screen.look())
            left = until - self._clock.monotonic()
            printed = await reader.read(position, min(LOOK_SECONDS, max(left, 0.0)))
            if printed.data or printed.ended or left <= 0:
                return printed

    async def write_console(self, server_id: str, session: str, *, position: int, data: bytes) -> None:
        reader = self._session(server_id, session)
        new = reader.fresh(position, data)
        screen = self._screen(server_id, session)
        if screen is not None:
            reader.print(screen.said(new))
            return
        terminal, sessions = self._lines[server_id]
        found = self._guests.get(server_id)
        if found is not None and found.state is GuestState.RUNNING:  # A paused guest takes no input.
            sessions.print(terminal.typed(new))

    def end_sessions(self, server_id: str) -> None:
        """The guest has ended: its readers learn it at their next look."""
        if server_id in self._lines:
            self._lines[server_id][0].over = True
        for screen in self._screens[server_id][0].values() if server_id in self._screens else ():
            screen.over = True

    async def close_console(self, server_id: str, session: str) -> None:
        for places in (self._lines, self._screens):
            if server_id in places:
                places[server_id][1].close(session)

    def _lives(self, server_id: str) -> bool:
        found = self._guests.get(server_id)
        return found is not None and found.state in LIVING

    def _is_another(self, server_id: str) -> bool:
        """Whether the line was opened to another guest than this one, or before it was started again."""
        line = self._lines.get(server_id)
        return line is not None and (line[0].over or line[0].found is not self._guests.get(server_id))

    def _session(self, server_id: str, name: str) -> Session:
        for places in (self._screens, self._lines):
            place = places.get(server_id)
            if place is not None and name in place[1]:
                return place[1].get(name, self._clock.monotonic())
        raise DriverError("NO_SESSION: this console session has ended")

    def _screen(self, server_id: str, name: str) -> Screen | None:
        """Of a session that is one of a screen."""
        screens, sessions = self._screens.get(server_id, ({}, Sessions()))
        return screens.get(name) if name in sessions else None
