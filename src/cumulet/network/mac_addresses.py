"""MAC addresses of ports: new ones, and which are in use."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network.store import ports

MAC_PREFIX = "fa:16:3e"
MAC_ATTEMPTS = 16


def new_mac(tx: Tx, clock: Clock, network_id: str) -> str:
    """A MAC address that no port of the network has. A unique constraint refuses a clash in spite of this check."""
    for _ in range(MAC_ATTEMPTS):
        mac = ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in clock.token_bytes(3))])
        if not mac_in_use(tx, network_id, mac):
            return mac
    raise Conflict(f"Unable to complete operation for network {network_id}. No free MAC address was found.")


_OWNER_OF_MAC = sa.select(ports.c.id).where(
    ports.c.network_id == sa.bindparam("network_id"), ports.c.mac_address == sa.bindparam("mac")
)


def mac_in_use(tx: Tx, network_id: str, mac: str) -> bool:
    return tx.first(_OWNER_OF_MAC, {"network_id": network_id, "mac": mac}) is not None
