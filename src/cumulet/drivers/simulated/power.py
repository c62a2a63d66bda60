"""How simulated guests end: by a verb, by a crash, or when their host loses its power."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import NO_PROCESS, SimulatedGuest
from cumulet.host.driver import DriverError, GuestState, MigrationPhase


class SimulatedPower:
    """Part of `SimulatedDriver`."""

    name: str
    _clock: Clock
    _guests: dict[str, SimulatedGuest]
    _drop_copy: Callable[[str, MigrationPhase, str], None]
    _save: Callable[[SimulatedGuest], None]
    fail_snapshot: Callable[[str, str], None]
    end_sessions: Callable[[str], None]

    def crash_guest(self, server_id: str) -> None:
        """Its process ends and its memory is lost. Its disk stays, but for one that is incoming and not whole."""
        found = self._guests[server_id]
        self._drop_copy(server_id, MigrationPhase.FAILED, "the guest crashed")
        self.fail_snapshot(server_id, "the guest crashed")
        self.end_sessions(server_id)
        if found.state is GuestState.INCOMING and not (found.incoming_complete or found.disk_whole):
            del self._guests[server_id]
        elif found.standing_by:
            found.halt(GuestState.STOPPED, self._clock.now_us())
        elif found.state not in NO_PROCESS:
            found.died_incoming = found.state is GuestState.INCOMING
            found.paused_by_user = False
            found.halt(GuestState.CRASHED, self._clock.now_us())
        self._save(found)

    def power_off_guest(self, server_id: str) -> None:
        """It powers itself off."""
        found = self._guests[server_id]
        if found.state is GuestState.RUNNING:
            self._halt(found, GuestState.STOPPED)

    def lose_power(self) -> None:
        """End all guests, as a power failure of the host, or its watchdog, does."""
        for server_id in list(self._guests):
            self.crash_guest(server_id)

    def _refuse_suspended(self, found: SimulatedGuest) -> None:
        if found.state is GuestState.SUSPENDED:
            raise DriverError(f"guest {found.guest.server_id} is suspended on {self.name}: resume it first")

    def _drop_saved(self, found: SimulatedGuest) -> None:
        """Make a suspended guest a stopped one."""
        if found.state is GuestState.SUSPENDED:
            found.paused_by_user = False
            self._halt(found, GuestState.STOPPED)

    def _halt(self, found: SimulatedGuest, state: GuestState) -> None:
        self._drop_copy(found.guest.server_id, MigrationPhase.FAILED, f"guest {state}")
        found.halt(state, self._clock.now_us())
        if state is not GuestState.PAUSED:
            self.end_sessions(found.guest.server_id)
        self._save(found)
