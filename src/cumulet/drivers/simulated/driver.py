"""Simulated hosts: the same `Driver` with a guest model instead of a hypervisor, for tool builders and simulation.

A guest has memory and a dirty rate, a copy has a bandwidth. Rounds, convergence and downtime follow from these in
closed form, in virtual seconds: `Settings.simulated_speed` of them pass in one second of the clock. The flavor's extra
spec ``cumulet:dirty_rate_mib_s`` (default 20) sets how fast a guest dirties memory; with a high one its copy never
converges. Guests are kept in files under the state folder: like real ones they survive the control plane.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec

from cumulet.clock import Clock
from cumulet.drivers.simulated.console import SimulatedConsole
from cumulet.drivers.simulated.console_sessions import SimulatedConsoleSessions
from cumulet.drivers.simulated.copy import Copy
from cumulet.drivers.simulated.guest import (
    ADDRESS,
    CPU_MODEL,
    FEATURES,
    MACHINE_TYPE,
    NO_PROCESS,
    SimulatedGuest,
    require_devices,
)
from cumulet.drivers.simulated.guest_agent import SimulatedGuestAgent
from cumulet.drivers.simulated.introductions import Introductions
from cumulet.drivers.simulated.moves import SimulatedMoves
from cumulet.drivers.simulated.network import SimulatedNetwork, SimulatedTraffic
from cumulet.drivers.simulated.power import SimulatedPower
from cumulet.drivers.simulated.rescue import SimulatedRescue
from cumulet.drivers.simulated.snapshots import SimulatedSnapshots, Take
from cumulet.drivers.simulated.telling import SimulatedTelling
from cumulet.host.devices import NO_SCREEN
from cumulet.host.driver import (
    DriverError,
    Guest,
    GuestReport,
    GuestState,
    HostFacts,
    MigrationPhase,
    Nic,
)
from cumulet.host.nics import with_nic, without_nic
from cumulet.host.wiring import InForce, Wiring
from cumulet.settings import Settings


class World:
    """What simulated hosts share. `drivers`, by host name, is the wire between them."""

    def __init__(self) -> None:
        self.drivers: dict[str, SimulatedDriver] = {}
        self.ports = itertools.count(49152)
        """Each destination listens at the next one."""
        self.take: Take | None = None
        """Takes images of guests' disks; None while there is no Image service."""


class SimulatedDriver(
    SimulatedMoves,
    SimulatedPower,
    SimulatedSnapshots,
    SimulatedRescue,
    SimulatedGuestAgent,
    SimulatedConsole,
    SimulatedConsoleSessions,
    SimulatedTraffic,
    SimulatedTelling,
):
    """`host.driver.Driver` with modelled guests. `directory` None keeps guests in memory only."""

    def __init__(self, *, name: str, world: World, clock: Clock, settings: Settings, directory: Path | None) -> None:
        super().__init__()
        self.name = name
        self._world = world
        self._clock = clock
        self._booted_at_us = clock.now_us()
        self._settings = settings
        self._directory = directory
        self._guests: dict[str, SimulatedGuest] = {}
        self._copies: dict[str, Copy] = {}
        self._introductions = Introductions(name, world.ports)
        self._tasks: set[asyncio.Task[None]] = set()
        self.network = SimulatedNetwork()
        world.drivers[name] = self
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in directory.glob("*.json"):
                found = msgspec.json.decode(path.read_bytes(), type=SimulatedGuest)
                if found.memory_at is not None:  # Its copy ended with the process that modelled it.
                    found.memory_at, found.starved = None, True
                self._guests[path.stem] = found

    async def wire(self, wiring: Wiring) -> InForce:
        self.network.apply(wiring)
        return await self.in_force()

    async def in_force(self) -> InForce:
        return self.network.in_force({port for found in self._guests.values() for port in found.linked})

    # -- what it is

    async def facts(self) -> HostFacts:
        settings = self._settings
        return HostFacts(
            name=self.name,
            driver="simulated",
            hypervisor_type="simulated",
            hypervisor_version=1_000_000,
            vcpus=settings.simulated_vcpus,
            memory_mib=settings.simulated_memory_mib,
            disk_gib=settings.simulated_disk_gib,
            cpu_models=(CPU_MODEL,),
            machine_types=(MACHINE_TYPE,),
            features=FEATURES,
            address=ADDRESS,
            booted_at_us=self._booted_at_us,
        )

    async def guests(self) -> list[GuestReport]:
        copied = {server_id for server_id, copy in self._copies.items() if copy.outcome is None}
        return [found.report(copied=server_id in copied) for server_id, found in self._guests.items()]

    async def observe(self, server_id: str) -> GuestState:
        return self._guests[server_id].state if server_id in self._guests else GuestState.ABSENT

    # -- life

    async def create(self, guest: Guest, *, run: bool = True) -> Guest:
        found = self._guests.get(guest.server_id)
        # Left by an earlier move that nobody committed.
        if found is None or found.died_incoming or found.state is GuestState.INCOMING:
            require_devices(guest)
            screen = guest.devices.video_model != NO_SCREEN
            guest = msgspec.structs.replace(guest, machine_type=MACHINE_TYPE, cpu_model=CPU_MODEL, screen=screen)
            found = SimulatedGuest.stopped(guest, f"{self.name} {self._clock.now_us()}")
            self._guests[guest.server_id] = found
            if run:
                found.run(self._clock.now_us())
            self._save(found)
        return found.guest

    async def destroy(self, server_id: str) -> None:
        self._drop_copy(server_id, MigrationPhase.FAILED, "guest destroyed")
        await self.end_snapshot(server_id)
        if self._guests.pop(server_id, None) is not None and self._directory is not None:
            (self._directory / f"{server_id}.json").unlink(missing_ok=True)

    async def start(self, server_id: str, *, drop_saved: bool = False) -> None:
        found = self._own(server_id)
        if drop_saved:
            self._drop_saved(found)
        self._refuse_suspended(found)
        if not found.paused_by_user:
            self._run(found, fresh=True)

    async def stop(self, server_id: str, *, grace_seconds: float) -> None:
        found = self._own(server_id)
        self._refuse_suspended(found)
        found.paused_by_user = found.standing_by = False
        self._halt(found, GuestState.STOPPED)

    async def reboot(self, server_id: str, *, hard: bool) -> None:
        if hard:
            self._drop_saved(self._own(server_id))
        await self.stop(server_id, grace_seconds=0.0)
        self._run(self._found(server_id), fresh=True)

    async def pause(self, server_id: str) -> None:
        found = self._with_process(self._own(server_id))
        found.paused_by_user = True
        self._halt(found, GuestState.PAUSED)

    async def unpause(self, server_id: str) -> None:
        self._run(self._with_process(self._own(server_id)))

    async def suspend(self, server_id: str) -> None:
        found = self._own(server_id)
        if found.state is not GuestState.SUSPENDED:
            self._halt(self._with_process(found), GuestState.SUSPENDED)

    async def resume(self, server_id: str) -> None:
        found = self._own(server_id)
        if found.state is GuestState.SUSPENDED:
            self._run(found)
        else:
            self._with_process(found)

    async def plug(self, server_id: str, nic: Nic) -> None:
        found = self._own(server_id)
        self._refuse_suspended(found)
        found.guest = with_nic(found.guest, nic)
        self._save(found)

    async def unplug(self, server_id: str, port_id: str, *, insist: bool = True) -> None:
        found = self._own(server_id)
        self._refuse_suspended(found)
        if insist and found.state is GuestState.PAUSED and any(nic.port_id == port_id for nic in found.guest.nics):
            raise DriverError(f"guest {server_id} on {self.name} is paused, and lets go of no NIC")
        found.guest = without_nic(found.guest, port_id)
        self._save(found)

    async def close(self) -> None:
        tasks = [*self._tasks, *self.snapshot_tasks()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- inside

    def _found(self, server_id: str) -> SimulatedGuest:
        found = self._guests.get(server_id)
        if found is None:
            raise DriverError(f"no guest {server_id} on {self.name}")
        return found

    def _own(self, server_id: str) -> SimulatedGuest:
        """A guest that is on neither side of a move. During a move only the move's own verbs start or stop it."""
        found, copy = self._found(server_id), self._copies.get(server_id)
        copied = copy is not None and copy.outcome in (None, MigrationPhase.COMPLETED)
        if copied or found.state in (GuestState.INCOMING, GuestState.HANDED_OVER):
            raise DriverError(f"guest {server_id} is one side of a migration on {self.name}")
        found.died_incoming = False  # It is asked of what is this host's.
        return found

    def _with_process(self, found: SimulatedGuest) -> SimulatedGuest:
        if found.state in NO_PROCESS:
            raise DriverError(f"guest {found.guest.server_id} is {found.state} on {self.name}: no process runs it")
        return found

    def _run(self, found: SimulatedGuest, *, fresh: bool = False) -> None:
        if found.state is not GuestState.RUNNING:
            if fresh:
                found.ran_us = found.console_from_us = 0
            found.paused_by_user = found.standing_by = False
            found.run(self._clock.now_us())
            self._save(found)

    def _save(self, found: SimulatedGuest) -> None:
        """Atomic, not fsynced: a simulated host survives the end of the process, not a power failure of the machine."""
        if self._directory is not None:
            path = self._directory / f"{found.guest.server_id}.json"
            fresh = path.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(found))
            fresh.replace(path)
