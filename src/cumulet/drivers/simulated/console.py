"""What simulated guests print and tell of themselves, and what they do on an NMI or a press of the power button."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host.diagnostics import GuestCounters
from cumulet.host.driver import DriverError


class SimulatedConsole:
    """Part of `SimulatedDriver`."""

    name: str
    _clock: Clock
    _own: Callable[[str], SimulatedGuest]
    _found: Callable[[str], SimulatedGuest]
    _with_process: Callable[[SimulatedGuest], SimulatedGuest]

    async def console_output(self, server_id: str, *, max_bytes: int) -> bytes:
        """Ticks printed here: `tick N <server id>`, ten a second of running time, counted across moves."""
        return self._found(server_id).printed(self._clock.now_us(), max_bytes)

    async def diagnostics(self, server_id: str) -> GuestCounters:
        """A modelled guest is always busy, and holds all of its memory."""
        found = self._with_process(self._found(server_id))
        guest = found.guest
        ran_ns = found.ran_until(self._clock.now_us()) * 1000
        return GuestCounters(cpu_times_ns=(ran_ns,) * guest.vcpus, resident_kib=guest.memory_mib * 1024)

    async def inject_nmi(self, server_id: str) -> None:
        found = self._with_process(self._own(server_id))
        if found.standing_by:
            raise DriverError(f"guest {server_id} stands by for a move")
        found.nmis += 1
