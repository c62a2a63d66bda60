"""The agents in simulated guests: they only note what they are asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host.driver import DriverError, GuestState


class SimulatedGuestAgent:
    """Part of `SimulatedDriver`."""

    _own: Callable[[str], SimulatedGuest]
    _with_process: Callable[[SimulatedGuest], SimulatedGuest]
    _save: Callable[[SimulatedGuest], None]

    async def set_password(self, server_id: str, *, user: str, password: str) -> None:
        found = self._with_agent(server_id)
        if found.state is not GuestState.RUNNING:
            raise DriverError("AGENT_NO_ANSWER: the guest stands still")
        found.passwords = {**found.passwords, user: hashlib.sha256(password.encode()).hexdigest()}
        self._save(found)

    def freeze_and_thaw(self, server_id: str) -> None:
        """For the moment of a snapshot. A guest that stands still writes nothing, so nothing is done."""
        found = self._own(server_id)
        if found.state is GuestState.RUNNING:
            self._with_agent(server_id).freezes += 1
            self._save(found)

    def _with_agent(self, server_id: str) -> SimulatedGuest:
        found = self._with_process(self._own(server_id))
        if not found.guest.agent:
            raise DriverError("NO_AGENT: its image does not say that there is a guest agent")
        return found
