"""Rescue of simulated guests: only the image that a guest runs from changes."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import SimulatedGuest, require_devices
from cumulet.host.devices import USUAL
from cumulet.host.driver import DriverError, Guest, GuestState


class SimulatedRescue:
    """Part of `SimulatedDriver`."""

    _clock: Clock
    _own: Callable[[str], SimulatedGuest]
    _found: Callable[[str], SimulatedGuest]
    _refuse_suspended: Callable[[SimulatedGuest], None]
    _halt: Callable[[SimulatedGuest, GuestState], None]
    _run: Callable[..., None]

    async def rescue(self, guest: Guest) -> None:
        found = self._own(guest.server_id)
        if found.standing_by:
            raise DriverError(f"guest {guest.server_id} stands by for a move")
        self._refuse_suspended(found)
        if found.rescue_image == guest.image and found.state is GuestState.RUNNING:
            return
        require_devices(guest)
        self._halt(found, GuestState.STOPPED)
        found.rescue_image, found.rescued_by = guest.image, guest.devices
        self._run(found, fresh=True)

    async def unrescue(self, server_id: str, *, run: bool) -> None:
        found = self._found(server_id)
        if found.rescue_image is not None:
            found.rescue_image, found.rescued_by = None, USUAL
            self._halt(found, GuestState.STOPPED)
        elif found.state is not GuestState.STOPPED:
            return
        if run:
            self._run(found, fresh=True)

    async def rescued(self, server_id: str) -> bool:
        return self._found(server_id).rescue_image is not None
