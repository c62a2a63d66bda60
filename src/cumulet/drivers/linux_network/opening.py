"""Opens the network of a host where its machine can wire guests."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulet.drivers.linux_network.network import LinuxNetwork

log = logging.getLogger(__name__)


async def network_of(host: str, address: str, public_device: str | None) -> LinuxNetwork | None:
    """Wires the guests of a host that is alone in its network namespace. None: that is not possible here."""
    from cumulet.drivers.linux_network.network import LinuxNetwork  # not where no guest is wired
    from cumulet.drivers.linux_network.probe import probe

    answer = await asyncio.to_thread(probe)
    if answer.tracking is None:
        log.warning("%s cannot wire guests: %s", host, answer.problem)
        return None
    physical = {} if public_device is None else {"public": public_device}
    return await LinuxNetwork.open(local_address=address, tracking=answer.tracking, physical=physical)
