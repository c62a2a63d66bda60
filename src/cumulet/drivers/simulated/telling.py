"""The metadata service of simulated hosts: nobody asks it but tests, which see what a real one would answer."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.clock import Clock
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.drivers.simulated.network import SimulatedNetwork
from cumulet.host.documents import documents
from cumulet.host.telling import PASSWORD, Heard, Posted, Told, is_late, without


class SimulatedTelling:
    """Part of `SimulatedDriver`."""

    network: SimulatedNetwork
    _clock: Clock
    _guests: dict[str, SimulatedGuest]
    _found: Callable[[str], SimulatedGuest]
    _save: Callable[[SimulatedGuest], None]

    async def tell(self, server_id: str, told: Told) -> Heard:
        found = self._guests.get(server_id)
        if found is None:
            return Heard(revision=0)
        if found.told is not None and is_late(found.told, told):
            return Heard(revision=found.told.revision + 1, posted=found.posted)
        left = without(found.posted, told)
        if (found.told, found.posted) != (told, left):
            found.told, found.posted = told, left
            self._save(found)
        return Heard(revision=told.revision, posted=left)

    def tells(self, server_id: str) -> dict[str, bytes]:
        """What the guest would be answered, by name of the document."""
        found = self._found(server_id)
        return documents(found.guest, self.network.wiring, found.told, found.posted)

    def post_password(self, server_id: str, content: str) -> bool:
        """As the guest would; False (409) if there is one already."""
        if PASSWORD in self.tells(server_id):
            return False
        found = self._found(server_id)
        found.posted = Posted(id=self._clock.uuid(), content=content)
        self._save(found)
        return True
