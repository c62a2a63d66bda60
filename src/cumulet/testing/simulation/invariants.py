"""What must hold when everything has come to rest: every part of the cloud tells the same story, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cumulet.compute.store import servers
from cumulet.db.engine import Tx
from cumulet.testing import agreement

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud
    from cumulet.testing.simulation.workload import Workload


class Broken(Exception):
    """An invariant does not hold."""


def check_quiet(cloud: SimulatedCloud, workload: Workload) -> list[str]:
    """What is not (yet) as it must be; empty when all is well."""
    guests = {name: machine.driver.present() for name, machine in cloud.machines.items()}
    return cloud.db.read(
        lambda tx: [*agreement.unfinished(tx), *agreement.disagreements(tx, guests), *_lost(tx, workload)]
    )


def _lost(tx: Tx, workload: Workload) -> Iterator[str]:
    rows = {row.id: row for row in tx.all(sa.select(servers.c.id, servers.c.deleted_at_us))}
    for server_id in workload.created:
        if server_id not in rows:
            yield f"server {server_id[:8]} was acknowledged and is lost"
    for server_id in workload.deleted:
        if rows[server_id].deleted_at_us is None:
            yield f"the delete of {server_id[:8]} was acknowledged and is lost"
