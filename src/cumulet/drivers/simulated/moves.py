"""Moves between simulated hosts: live migration from both ends, and what a cold migration does before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulet.clock import Clock, sleep_unless_set
from cumulet.drivers.simulated.copy import Copy
from cumulet.drivers.simulated.guest import CPU_MODEL, MACHINE_TYPE, NO_PROCESS, SimulatedGuest, require_devices
from cumulet.drivers.simulated.introductions import Introductions
from cumulet.host.driver import (
    DriverError,
    Guest,
    GuestState,
    MigrationParameters,
    MigrationPhase,
    MigrationProgress,
)
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.settings import Settings

if TYPE_CHECKING:
    from cumulet.drivers.simulated.driver import World


class SimulatedMoves:
    """Part of `SimulatedDriver`. Copies end with the process that models them."""

    name: str
    _world: World
    _clock: Clock
    _settings: Settings
    _guests: dict[str, SimulatedGuest]
    _copies: dict[str, Copy]
    _introductions: Introductions
    _tasks: set[asyncio.Task[None]]
    _own: Callable[[str], SimulatedGuest]
    _found: Callable[[str], SimulatedGuest]
    _with_process: Callable[[SimulatedGuest], SimulatedGuest]
    _save: Callable[[SimulatedGuest], None]

    # -- the destination of a live migration

    async def prepare_incoming(self, guest: Guest, *, source: Peer, parameters: MigrationParameters) -> Endpoint:
        found = self._guests.get(guest.server_id)
        if found is not None and found.died_incoming:
            found = None
        if found is not None and found.state is not GuestState.INCOMING:
            raise DriverError(f"guest {guest.server_id} is {found.state} on {self.name}")
        if found is not None and found.incoming_complete:
            # As with QEMU: the request is late, and what is here may be the only copy.
            raise DriverError("HOLDS_STATE: this destination has taken a guest's state; resume or destroy it")
        if found is not None and self._is_sent(found):  # As with QEMU, it is not thrown away for a late request.
            raise DriverError("RECEIVING: a copy comes into this destination; cancel it, or destroy it")
        if guest.machine_type != MACHINE_TYPE or guest.cpu_model != CPU_MODEL:
            raise DriverError(f"{self.name} cannot run {guest.machine_type} with {guest.cpu_model}")
        require_devices(guest)
        paused = parameters.paused
        fresh = SimulatedGuest(guest=guest, state=GuestState.INCOMING, incoming_peer=source, paused_by_user=paused)
        self._guests[guest.server_id] = fresh
        self._save(fresh)
        return self._introductions.endpoint(source.move)

    def copy_of(self, server_id: str) -> Copy | None:
        """The copy of a guest from here, under way or ended."""
        return self._copies.get(server_id)

    async def resume_destination(self, server_id: str) -> None:
        found = self._found(server_id)
        if found.state is GuestState.INCOMING:
            if not found.incoming_complete:
                raise DriverError(f"guest {server_id} has not arrived on {self.name}")
            if found.paused_by_user:
                found.halt(GuestState.PAUSED, self._clock.now_us())
            else:
                found.run(self._clock.now_us())
            self._save(found)
        else:
            self._with_process(self._own(server_id))

    async def arrival(self, server_id: str) -> MigrationPhase:
        found = self._found(server_id)
        if found.starved:
            return MigrationPhase.FAILED
        if found.memory_at is not None:
            return MigrationPhase.POST_COPY
        if found.incoming_from is None or found.state in (GuestState.STOPPED, GuestState.CRASHED):
            return MigrationPhase.NONE
        if found.incoming_complete:
            return MigrationPhase.COMPLETED
        return MigrationPhase.ACTIVE if self._is_sent(found) else MigrationPhase.NONE

    def _is_sent(self, found: SimulatedGuest) -> bool:
        """Whether a copy to this destination is under way."""
        source = self._world.drivers.get(found.incoming_from or "")
        copy = source.copy_of(found.guest.server_id) if source is not None else None
        return copy is not None and copy.destination == self.name and copy.outcome is None

    async def recover_incoming(self, server_id: str) -> Endpoint:
        found = self._found(server_id)
        if found.memory_at is None:
            raise DriverError(f"guest {server_id} waits for no memory on {self.name}")
        return self._introductions.endpoint(found.incoming_peer.move if found.incoming_peer is not None else "")

    async def give_up_memory(self, server_id: str) -> None:
        found = self._found(server_id)
        waits = found.state is GuestState.INCOMING and not found.incoming_complete
        if found.starved or found.memory_at is not None or found.died_incoming or waits:
            stopped = SimulatedGuest(guest=found.guest, state=GuestState.STOPPED, disks=found.disks)
            stopped.told, stopped.posted = found.told, found.posted
            self._guests[server_id] = stopped
            self._save(stopped)

    # -- its source

    async def prepare_outgoing(self, server_id: str, *, move: str) -> Peer:
        return self._introductions.offer(server_id, move, self._copies.get(server_id))

    async def start_copy(self, server_id: str, endpoint: Endpoint, parameters: MigrationParameters) -> None:
        found = self._found(server_id)
        copy = self._copies.get(server_id)
        if copy is not None and copy.outcome in (None, MigrationPhase.COMPLETED):
            if copy.endpoint == endpoint:
                return
            raise DriverError(f"guest {server_id} is being copied to another place, or was")
        if found.state not in (GuestState.RUNNING, GuestState.PAUSED):
            raise DriverError(f"guest {server_id} is {found.state}, nothing to copy")
        source = self._introductions.use(server_id, endpoint.peer.move, self._arrived(server_id, endpoint.peer.host))
        rate = found.dirty_rate_mib_s if found.state is GuestState.RUNNING else 0.0
        copy = Copy(found.guest, endpoint, parameters, source, rate, self._clock.now_us())
        self._copies[server_id] = copy
        task = asyncio.create_task(self._copy(server_id, copy), name=f"copy-{server_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copy(self, server_id: str, copy: Copy) -> None:
        """Wait until the model says that it has ended. Then halt the source and load the destination in one go."""
        while copy.outcome is None:
            ready = copy.ready_at
            still = max(0.0, (copy.still_until_us - self._clock.now_us()) / 1_000_000)
            if ready is not None and not copy.told and not still and self._virtual(copy) >= ready:
                copy.told = True
                self._stand_still(server_id, copy)
                continue
            due = copy.completed_at if ready is None or copy.told else ready
            left = None if due is None else still + (due - self._virtual(copy)) / self._settings.simulated_speed
            if left is not None and left <= 0:
                self._hand_over(server_id, copy)
                return
            copy.changed.clear()
            # The clock counts microseconds: sleeping less would not let it move on.
            await sleep_unless_set(self._clock, max(left, 1e-6) if left is not None else 3600.0, copy.changed)

    def _stand_still(self, server_id: str, copy: Copy) -> None:
        """Ready for post-copy: the guest runs on neither side until the commit, or until the copy is cancelled."""
        here, arrived = self._guests.get(server_id), self._arrived(server_id, copy.destination)
        if here is None or arrived is None:
            self._finish(copy, MigrationPhase.FAILED, "the destination closed the connection")
            return
        here.halt(GuestState.HANDED_OVER, self._clock.now_us())
        arrived.disk_whole, arrived.disks = True, here.disks
        self._save(here)
        self._world.drivers[copy.destination]._save(arrived)
        copy.news.set()

    def _hand_over(self, server_id: str, copy: Copy) -> None:
        here, arrived = self._guests.get(server_id), self._arrived(server_id, copy.destination)
        if here is None or arrived is None:
            self._finish(copy, MigrationPhase.FAILED, "the destination closed the connection")
            return
        here.halt(GuestState.HANDED_OVER, self._clock.now_us())
        if copy.post_copy_at is None:
            self._load(here, arrived)
        arrived.memory_at = None
        self._save(here)
        self._world.drivers[copy.destination]._save(arrived)
        self._finish(copy, MigrationPhase.COMPLETED, None)

    def _load(self, here: SimulatedGuest, arrived: SimulatedGuest) -> None:
        """Give the destination what it needs to run the guest."""
        arrived.ran_us, arrived.disks = here.ran_us, here.disks
        arrived.console_from_us = here.ran_us
        arrived.incoming_complete = True

    def _arrived(self, server_id: str, destination: str) -> SimulatedGuest | None:
        """The guest at the destination of its copy, while it can take in what is sent; else None."""
        peer = self._world.drivers.get(destination)
        arrived = peer._guests.get(server_id) if peer is not None else None
        if arrived is None or arrived.incoming_from != self.name:
            return None
        return arrived if arrived.state is GuestState.INCOMING or arrived.memory_at == self.name else None

    async def copy_progress(self, server_id: str, *, wait_seconds: float, seen: MigrationPhase) -> MigrationProgress:
        copy = self._copies.get(server_id)
        if copy is None:
            return self._no_copy(server_id)
        progress = copy.progress(self._virtual(copy))
        if progress.phase is seen and not copy.ended.is_set():
            await sleep_unless_set(self._clock, wait_seconds, copy.ended if copy.told else copy.news)
            progress = copy.progress(self._virtual(copy))
        return progress

    async def force_complete(self, server_id: str) -> None:
        copy = self._copies.get(server_id)
        if copy is None or copy.outcome not in (None, MigrationPhase.COMPLETED):
            raise DriverError(f"no copy of guest {server_id} is under way on {self.name}")
        if copy.outcome is not None or copy.forced_at is not None:
            return
        at = self._virtual(copy)
        if copy.switchover_at is None or at < copy.switchover_at:  # Else it ends by itself.
            copy.forced_at = at
            copy.changed.set()

    async def begin_post_copy(self, server_id: str) -> None:
        copy = self._copies.get(server_id)
        if copy is None or copy.outcome in (MigrationPhase.FAILED, MigrationPhase.CANCELLED):
            raise DriverError(f"no copy of guest {server_id} is under way on {self.name}")
        if copy.outcome is not None or copy.post_copy_at is not None:
            return
        if not copy.told:
            raise DriverError(f"the copy of guest {server_id} is not ready for post-copy")
        here, arrived = self._found(server_id), self._arrived(server_id, copy.destination)
        if arrived is None:
            self._finish(copy, MigrationPhase.FAILED, "the destination closed the connection")
            raise DriverError("the destination closed the connection")
        self._load(here, arrived)
        arrived.memory_at = self.name
        copy.post_copy_at = self._virtual(copy)
        copy.changed.set()
        self._world.drivers[copy.destination]._save(arrived)

    async def recover_copy(self, server_id: str, endpoint: Endpoint) -> None:
        copy = self._copies.get(server_id)
        if copy is None or copy.outcome not in (None, MigrationPhase.COMPLETED):
            raise DriverError(f"no copy of guest {server_id} is under way on {self.name}")

    async def cancel_copy(self, server_id: str) -> MigrationProgress:
        copy = self._copies.get(server_id)
        if copy is None:
            return self._no_copy(server_id)
        if copy.outcome is None:
            if copy.post_copy_at is not None:
                raise DriverError(f"guest {server_id} runs at its destination: too late to cancel")
            self._finish(copy, MigrationPhase.CANCELLED, None)
        return copy.progress(self._virtual(copy))

    async def resume_source(self, server_id: str) -> None:
        found = self._found(server_id)
        if found.state is GuestState.INCOMING:
            raise DriverError(f"guest {server_id} has come to {self.name}: it is the destination of a move")
        copy = self._copies.get(server_id)
        if copy is not None and copy.outcome is None:
            raise DriverError(f"guest {server_id} is being copied: cancel that before it is resumed on {self.name}")
        self._with_process(found)
        self._copies.pop(server_id, None)
        if found.state is GuestState.HANDED_OVER:
            if found.paused_by_user:
                found.halt(GuestState.PAUSED, self._clock.now_us())
            else:
                found.run(self._clock.now_us())
            self._save(found)

    # -- cold migration

    async def stand_by(self, server_id: str) -> None:
        found = self._found(server_id)
        if not found.standing_by:
            if found.state not in (GuestState.STOPPED, GuestState.CRASHED):
                raise DriverError(f"guest {server_id} is {found.state}, not stopped")
            found.died_incoming = False
            found.standing_by = True
            found.halt(GuestState.PAUSED, self._clock.now_us())
            self._save(found)

    async def stand_down(self, server_id: str) -> None:
        found = self._found(server_id)
        if found.standing_by:
            self._drop_copy(server_id, MigrationPhase.FAILED, "stood down")
            found.standing_by = False
            found.halt(GuestState.STOPPED, self._clock.now_us())
            self._save(found)

    async def take_in(self, guest: Guest) -> None:
        found = self._found(guest.server_id)
        if found.state is GuestState.INCOMING and not found.incoming_complete:
            raise DriverError(f"guest {guest.server_id} has not arrived on {self.name}")
        if found.state not in (GuestState.INCOMING, GuestState.STOPPED, GuestState.CRASHED):
            raise DriverError(f"guest {guest.server_id} is {found.state} on {self.name}")
        taken = SimulatedGuest.stopped(guest, f"{self.name} {self._clock.now_us()}", found.disks)
        taken.told, taken.posted = found.told, found.posted
        self._guests[guest.server_id] = taken
        self._save(taken)

    # -- inside

    def _virtual(self, copy: Copy) -> float:
        return copy.elapsed(self._clock.now_us(), speed=self._settings.simulated_speed)

    def _finish(self, copy: Copy, outcome: MigrationPhase, error: str | None) -> None:
        copy.outcome = outcome
        copy.error = error
        copy.news.set()
        copy.ended.set()
        copy.changed.set()

    def _drop_copy(self, server_id: str, outcome: MigrationPhase, error: str) -> None:
        copy = self._copies.pop(server_id, None)
        if copy is not None and copy.outcome is None:
            self._finish(copy, outcome, error)
            arrived = self._arrived(server_id, copy.destination)
            if copy.post_copy_at is not None and arrived is not None:
                arrived.memory_at = None
                arrived.starved = True
                self._world.drivers[copy.destination]._save(arrived)

    def _no_copy(self, server_id: str) -> MigrationProgress:
        """As with QEMU: a guest without a process has no copy, and nobody knows how its last one ended."""
        dead = self._found(server_id).state in NO_PROCESS
        return MigrationProgress(phase=MigrationPhase.FAILED if dead else MigrationPhase.NONE)
