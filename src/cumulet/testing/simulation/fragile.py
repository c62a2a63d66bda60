"""Simulated hypervisors that break: processes crash and hang, disks are slow or fail, verbs fail or hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

import msgspec

from cumulet.drivers.simulated.copy import Copy
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host import disks as host_disks
from cumulet.host import machine
from cumulet.host import messages as m
from cumulet.host.driver import DriverError, Guest, GuestState, HostFacts, MigrationParameters, MigrationPhase
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.verbs import verbs
from cumulet.host.wiring import NO_PACKETS
from cumulet.testing.simulation.faults import Weather

MONITOR_SECONDS = 5.0
"""How long an agent waits for a hypervisor's process to answer."""
FOR_EVER_US = 2**62


FurtherDisks = tuple[tuple[host_disks.Disk, ...], dict[int, str]]


class FragileDriver(SimulatedDriver):
    """The simulated hypervisor, whose guests may crash or hang and whose machine may lose power or have a bad disk."""

    changed: Callable[[], None]
    copying: Callable[[str], None]
    """Called with the move of each copy that begins here."""
    generation_of: Callable[[str], int]
    """Gives the highest generation of a server that its agent has accepted."""
    sharing = 1
    """How many hosts share its machine."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.disk = Disk()
        self._hung: dict[str, asyncio.Future[bool]] = {}
        """By guest whose process hangs: whether it goes on in the end and then does what it was told, in order."""
        self._queued: set[asyncio.Future[object]] = set()
        self._long: list[asyncio.Future[None]] = []
        """The ends of verbs that hang."""

    async def facts(self) -> HostFacts:
        """As the simulated driver's, but of a machine that several hosts may share, and with networks that count."""
        facts = await super().facts()
        features = tuple(feature for feature in facts.features if feature != NO_PACKETS)
        facts = msgspec.structs.replace(facts, features=features)
        whole = machine.Capacity(vcpus=facts.vcpus, memory_mib=facts.memory_mib, disk_gib=facts.disk_gib)
        return msgspec.structs.replace(facts, **msgspec.structs.asdict(machine.part(whole, self.sharing)))

    # -- consoles

    async def open_console(self, server_id: str, session: str) -> None:
        """The first words of a console name its host, its server, and the generation this host has accepted."""
        await super().open_console(server_id, session)
        place = f"[at {self.name} {server_id} {self.generation_of(server_id)}]"
        self._session(server_id, session).print(place.encode())

    # -- processes that hang

    def hang(self, server_id: str) -> None:
        """Stop the guest's process: it answers no question, and a copy from or to it stands still."""
        if server_id not in self._hung:
            self._hung[server_id] = asyncio.get_running_loop().create_future()
        for copy in self._copies_with(server_id):
            copy.stand_still(self._clock.now_us(), FOR_EVER_US)

    def go_on(self, server_id: str) -> None:
        self._end_hang(server_id, goes_on=True)

    def heal(self) -> None:
        """Let everything go on that hangs: processes, copies, verbs."""
        for server_id in list(self._hung):
            self.go_on(server_id)
        for copy in self.copies().values():
            copy.stand_still(self._clock.now_us(), self._clock.now_us())
        for over in self._long:
            _end(over)

    async def take_long(self, seconds: float) -> None:
        """Let a verb hang for so many seconds, or until `heal`."""
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        timer = loop.call_later(seconds, _end, over)
        self._long.append(over)
        try:
            await over
        finally:
            timer.cancel()
            self._long.remove(over)

    def copies(self) -> dict[str, Copy]:
        """The copies under way from this host."""
        return {server_id: copy for server_id, copy in self._copies.items() if copy.outcome is None}

    def _copies_with(self, server_id: str) -> list[Copy]:
        """The copies of a guest with this host as source or destination."""
        fragile = [driver for driver in self._world.drivers.values() if isinstance(driver, FragileDriver)]
        found = [(driver, driver.copies().get(server_id)) for driver in fragile]
        return [copy for driver, copy in found if copy is not None and self.name in (driver.name, copy.destination)]

    def _end_hang(self, server_id: str, *, goes_on: bool) -> None:
        hung = self._hung.pop(server_id, None)
        if hung is not None:
            hung.set_result(goes_on)
            for copy in self._copies_with(server_id):
                copy.stand_still(self._clock.now_us(), self._clock.now_us())

    async def told(self, server_id: str, verb: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Give the guest's process a command. A process that hangs does it when it goes on, even if nobody waits
        then."""
        hung = self._hung.get(server_id)
        if hung is None:
            return await verb(*arguments, **named)
        queued = asyncio.ensure_future(self._once_it_goes_on(hung, verb, *arguments, **named))
        self._queued.add(queued)
        queued.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(MONITOR_SECONDS):
                return await asyncio.shield(queued)
        except TimeoutError:
            raise DriverError(f"the process of guest {server_id} does not answer") from None

    async def _once_it_goes_on(
        self, hung: asyncio.Future[bool], verb: Callable[..., Any], *arguments: Any, **named: Any
    ) -> Any:
        if not await asyncio.shield(hung):
            raise DriverError("the process has ended")
        return await verb(*arguments, **named)

    def _forget(self, queued: asyncio.Future[object]) -> None:
        self._queued.discard(queued)
        if not queued.cancelled():
            queued.exception()  # If nobody waits any more, nobody needs the error.

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        before = self._copies.get(server_id)
        await super().start_copy(server_id, endpoint, parameters)
        if (copy := self._copies[server_id]) is not before:
            self.copying(copy.source.move)
        peer = self._world.drivers[endpoint.peer.host]
        if isinstance(peer, FragileDriver) and server_id in peer._hung:
            peer.hang(server_id)

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        found = self._guests.get(guest.server_id)
        if found is not None and found.state is GuestState.INCOMING:  # Replaced, and its process with it.
            self._end_hang(guest.server_id, goes_on=False)
        return await super().create(guest, run=run)

    async def prepare_incoming(self, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
        endpoint = await super().prepare_incoming(guest, source=source, parameters=parameters)
        self._end_hang(guest.server_id, goes_on=False)  # This is a process of its own.
        return endpoint

    async def destroy(self, server_id: str) -> None:
        self._end_hang(server_id, goes_on=False)
        await super().destroy(server_id)

    # -- crashes

    def crash_guest(self, server_id: str) -> None:
        self._end_hang(server_id, goes_on=False)
        super().crash_guest(server_id)

    def fail_copies(self) -> None:
        """The disk fails, and so do copies, except those in post-copy."""
        for server_id in self.copies():
            self.fail_copy(server_id)

    def fail_copy(self, server_id: str) -> None:
        """Fail a copy. If its guest stood still for the switchover, it runs on by itself: some versions of QEMU do
        that."""
        copy = self.copies().get(server_id)
        if copy is None or copy.post_copy_at is not None:
            return
        self._finish(copy, MigrationPhase.FAILED, "input/output error")
        found = self._guests[server_id]
        if copy.told and not found.paused_by_user:
            found.run(self._clock.now_us())
            self._save(found)

    def lose_agent(self) -> None:
        """The agent dies: what only the agent does, such as snapshots, is lost."""
        for server_id in list(self._snapshots):
            self.fail_snapshot(server_id, "the agent died")

    def rescued_guests(self) -> set[str]:
        return {server_id for server_id, found in self._guests.items() if found.rescue_image is not None}

    def modelled(self) -> Mapping[str, SimulatedGuest]:
        """All guests of this host."""
        return self._guests

    def starved(self) -> list[str]:
        """Guests that stand still for ever: the rest of their memory is lost, and they were not booted anew."""
        return [server_id for server_id, found in self._guests.items() if found.starved]

    def present(self) -> dict[str, GuestState]:
        return {server_id: found.state for server_id, found in self._guests.items()}

    def linked(self) -> tuple[str, ...]:
        """The ports whose links are up."""
        return self.network.in_force({port for found in self._guests.values() for port in found.linked}).linked

    def further_disks(self) -> dict[str, FurtherDisks]:
        """By guest: the disks beside the first that its description says, and by their places what is on those there
        are."""
        return {
            server_id: (
                found.guest.disks,
                {place: made.partition(" ")[0] for place, made in found.disks.items()},
            )
            for server_id, found in self._guests.items()
        }

    def described(self) -> dict[str, Guest]:
        return {server_id: found.guest for server_id, found in self._guests.items()}

    def _save(self, found: SimulatedGuest) -> None:
        super()._save(found)
        self.changed()


def _end(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)


class Disk:
    """The disk of one machine. `failing` and `slow` count causes; 0 means well."""

    def __init__(self) -> None:
        self.failing = 0
        self.slow = 0

    async def touch(self, random: Random) -> None:
        if self.slow:
            await asyncio.sleep(random.uniform(0.2, 6.0))
        if self.failing and random.random() < 0.8:
            raise DriverError("input/output error")


VERBS = frozenset(
    m.name_of(verb).replace("-", "_") for verb in verbs() if issubclass(verb, m.Command) and verb is not m.CopyProgress
)
"""The driver's methods that change something: one for each command."""
_ON_DISK = frozenset({"create", "destroy", "start", "reboot", "suspend", "resume", "prepare_incoming", "take_in"})
_KILLS = frozenset({"create", "destroy", "prepare_incoming"})
"""Verbs that end the process, or start another: they do not wait for one that hangs."""


class UnreliableDriver:
    """Every verb of the inner driver may fail before it began or after it was done, and may take long to begin or to
    answer."""

    def __init__(self, inner: FragileDriver, weather: Weather, random: Random) -> None:
        self._inner = inner
        self._weather = weather
        self._random = random

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name not in VERBS:
            return verb

        async def unreliable(guest: Guest | str, *arguments: object, **named: object) -> Any:
            if name in _ON_DISK:
                await self._inner.disk.touch(self._random)
            hangs = self._random.random() < self._weather.verb_hangs
            hangs_after = hangs and self._random.random() < 0.5
            if hangs and not hangs_after:
                await self._inner.take_long(self._random.uniform(1.0, 20.0))
            if name == "begin_post_copy" and self._random.random() < self._weather.switch_fails:
                self._inner.fail_copy(str(guest))
            if self._random.random() < self._weather.verb_fails_before:
                raise DriverError(f"{name} failed before it began")
            if name in _KILLS:
                answer = await verb(guest, *arguments, **named)
            else:
                server_id = guest.server_id if isinstance(guest, Guest) else guest
                answer = await self._inner.told(server_id, verb, guest, *arguments, **named)
            if hangs_after:
                await self._inner.take_long(self._random.uniform(1.0, 20.0))
            if self._random.random() < self._weather.verb_fails_after:
                raise DriverError(f"{name} failed after it was done")
            return answer

        return unreliable
