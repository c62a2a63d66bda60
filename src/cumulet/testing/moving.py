"""For tests of drivers alone: the control plane's preparations of a move, so that each end knows the other."""

from __future__ import annotations

import uuid

from cumulet.host.driver import Driver, Guest, MigrationParameters
from cumulet.host.endpoint import Endpoint


async def prepared(
    source: Driver,
    destination: Driver,
    guest: Guest,
    parameters: MigrationParameters,
    *,
    move: str | None = None,
) -> Endpoint:
    """Prepare a move of the guest, a new one unless `move` names it. Returns where the destination listens."""
    peer = await source.prepare_outgoing(guest.server_id, move=move or str(uuid.uuid4()))
    return await destination.prepare_incoming(guest, source=peer, parameters=parameters)
