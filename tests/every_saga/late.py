"""Commands that come late and twice: all that hosts were told of a server is told them again, after every later step.

What is kept is what went over the links, so nothing is made up: a command has the generation, the operation and the
parameters it had. What a host has of the server must be the same before and after: nothing is let run, stopped, made
anew or destroyed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cumulet.conductor.saga import is_host_step
from cumulet.drivers.simulated.driver import World
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.crash_dump import InjectNmi
from cumulet.host.link import Link
from cumulet.testing import JsonObject

from .faults import Place, Script

MOVES_BY_ITSELF = "memory_at"
"""What changes without a command: in post-copy the rest of the memory comes when it comes."""
AT_LEAST_ONCE: dict[type[m.Command[object]], tuple[str, ...]] = {
    m.Reboot: ("ran_us", "running_since_us"),
    InjectNmi: ("nmis",),
}
"""What a verb that may be repeated changes each time: a reboot begins the guest's time anew, a non-maskable interrupt
interrupts, and no more."""


Guests = dict[str, dict[str, object]]
"""Host -> what it has of a server; a host that has nothing is not in it."""
Look = Callable[[str], Awaitable[Guests]]
"""By id of a server, asking nobody who was listened to."""


def look_into(world: World) -> Look:
    """All that there is to see of a simulated guest."""

    async def look(server_id: str) -> Guests:
        found = {name: driver._guests.get(server_id) for name, driver in world.drivers.items()}
        return {name: _described(world, guest) for name, guest in found.items() if guest is not None}

    return look


def _described(world: World, guest: SimulatedGuest) -> JsonObject:
    described = msgspec.structs.asdict(guest)
    del described[MOVES_BY_ITSELF]
    if guest.incoming_from is not None:
        copy = world.drivers[guest.incoming_from].copy_of(guest.guest.server_id)
        if copy is None or copy.outcome is not None:
            del described["disk_whole"]  # Nothing comes into it: it may be made anew, and will be destroyed.
    return described


@dataclass(slots=True)
class Told:
    """What hosts were told, in order, and what became of telling it again."""

    look: Look
    commands: list[tuple[str, m.Command[object]]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _links: dict[str, Link] = field(default_factory=dict)

    @contextlib.contextmanager
    def listening(self, hosts: Hosts) -> Iterator[None]:
        """What is sent meanwhile is kept."""
        self._links = {name: hosts.link(name) for name in hosts.names}
        for name, link in self._links.items():
            hosts.add(name, _Listening(name, link, self))
        try:
            yield
        finally:
            for name, link in self._links.items():
                hosts.add(name, link)

    async def repeat(self, when: str) -> None:
        """Say all of it again, in the order it was said in."""
        for host, command in list(self.commands):
            before = await self.look(command.server_id)
            with contextlib.suppress(m.VerbFailed, m.StaleGeneration):  # It is refused: just as well.
                await self._links[host].send(_at_once(command))
            after = await self.look(command.server_id)
            differences = list(_differences(before, after, AT_LEAST_ONCE.get(type(command), ())))
            if differences:
                name, generation = m.name_of(type(command)), command.generation
                again = f"{when}: {name} of step {command.step} of generation {generation} to {host} again"
                self.broken.append(f"{again}: {'; '.join(differences)}")


def _differences(before: Guests, after: Guests, expected: tuple[str, ...]) -> Iterator[str]:
    for host in sorted({*before, *after}):
        old, new = before.get(host, {"state": "absent"}), after.get(host, {"state": "absent"})
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name) and name not in expected]
        if changed:
            yield f"on {host} " + ", ".join(f"{name} {old.get(name)} -> {new.get(name)}" for name in changed)


def _at_once(command: m.Command[object]) -> m.Command[Any]:
    """Nobody waits for the answer."""
    return msgspec.structs.replace(command, wait_seconds=0.0) if isinstance(command, m.CopyProgress) else command


@dataclass(slots=True)
class _Listening:
    """A link that keeps the commands it carries."""

    host: str
    link: Link
    told: Told

    async def send(self, message: m.Message[object]) -> Any:
        if isinstance(message, m.Command):
            self.told.commands.append((self.host, message))
        return await self.link.send(message)

    async def close(self) -> None:
        await self.link.close()


@dataclass(slots=True)
class Repeating(Script):
    """A script in which all that was told is told again before and after every step that speaks to hosts."""

    told: Told = field(kw_only=True)

    def around(self, place: Place) -> Any:
        do = Script.around(self, place)
        if not is_host_step(do):
            return do  # What it leaves is met before the next step, or at the end.

        @functools.wraps(do)
        async def step(context: Any, state: Any) -> Any:
            await self.told.repeat(f"before {place}")
            try:
                return await do(context, state)
            finally:
                await self.told.repeat(f"after {place}")

        return step
